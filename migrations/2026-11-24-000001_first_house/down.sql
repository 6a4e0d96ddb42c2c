DROP TABLE repository_stats, snapshots, log_chunks, jobs, source_groups, enrollment_tokens, hosts, repositories, settings;
