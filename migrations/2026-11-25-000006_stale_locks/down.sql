DROP TABLE stale_locks;
