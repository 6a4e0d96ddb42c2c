DROP INDEX source_groups_by_name;
DROP INDEX hosts_decommissioned;
DROP INDEX hosts_by_name;
DROP INDEX jobs_partial;
DROP INDEX jobs_of_repository;
