DROP INDEX repository_stats_unsound;
DROP TABLE conditions;
DROP TABLE deliveries;
DROP TABLE notices;
DROP TABLE channels;
