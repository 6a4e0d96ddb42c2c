// @generated automatically by Diesel CLI.

diesel::table! {
    api_tokens (id) {
        id -> Uuid,
        name -> Text,
        token_hash -> Bytea,
        scope -> Text,
        host_labels -> Nullable<Jsonb>,
        created_at -> Timestamptz,
        created_by -> Text,
        expires_at -> Nullable<Timestamptz>,
        last_used_at -> Nullable<Timestamptz>,
        revoked_at -> Nullable<Timestamptz>,
    }
}

diesel::table! {
    audit (id) {
        id -> Uuid,
        at -> Timestamptz,
        request_id -> Text,
        token_id -> Nullable<Uuid>,
        token_name -> Nullable<Text>,
        remote_address -> Nullable<Text>,
        method -> Text,
        route -> Text,
        target -> Text,
        outcome -> Text,
        status -> Nullable<Int8>,
        detail -> Nullable<Text>,
        times -> Int8,
        seq -> Int8,
    }
}

diesel::table! {
    channels (id) {
        id -> Uuid,
        name -> Text,
        kind -> Text,
        url -> Nullable<Text>,
        secret -> Nullable<Bytea>,
        recipients -> Nullable<Jsonb>,
        events -> Nullable<Jsonb>,
        host_labels -> Nullable<Jsonb>,
        repository_id -> Nullable<Uuid>,
        enabled -> Bool,
        created_at -> Timestamptz,
        updated_at -> Timestamptz,
    }
}

diesel::table! {
    conditions (event, subject, name) {
        event -> Text,
        subject -> Uuid,
        name -> Text,
        since -> Timestamptz,
        marks -> Jsonb,
    }
}

diesel::table! {
    deliveries (id) {
        id -> Uuid,
        channel_id -> Uuid,
        notice_id -> Uuid,
        status -> Text,
        created_at -> Timestamptz,
        tried_from -> Timestamptz,
        next_attempt_at -> Nullable<Timestamptz>,
        tries -> Int8,
        attempts -> Jsonb,
        settled_at -> Nullable<Timestamptz>,
    }
}

diesel::table! {
    enrollment_tokens (token_hash) {
        token_hash -> Bytea,
        labels -> Jsonb,
        repository_id -> Nullable<Uuid>,
        host_id -> Nullable<Uuid>,
        created_at -> Timestamptz,
        expires_at -> Timestamptz,
        used_at -> Nullable<Timestamptz>,
    }
}

diesel::table! {
    hosts (id) {
        id -> Uuid,
        hostname -> Text,
        os -> Text,
        arch -> Text,
        labels -> Jsonb,
        repository_id -> Nullable<Uuid>,
        token_hash -> Nullable<Bytea>,
        agent_version -> Nullable<Text>,
        restic_version -> Nullable<Text>,
        protocol_version -> Nullable<Int8>,
        capabilities -> Jsonb,
        journal -> Nullable<Text>,
        previous_journal -> Nullable<Text>,
        cloned_at -> Nullable<Timestamptz>,
        boot_time -> Nullable<Timestamptz>,
        online -> Bool,
        last_seen_at -> Nullable<Timestamptz>,
        hook_shell -> Nullable<Text>,
        pre_hook -> Nullable<Text>,
        post_hook -> Nullable<Text>,
        bandwidth_up_kbps -> Nullable<Int8>,
        bandwidth_down_kbps -> Nullable<Int8>,
        schedule_version -> Int8,
        applied_schedule_version -> Nullable<Int8>,
        initialized_repository_id -> Nullable<Uuid>,
        snapshots_as_of -> Nullable<Timestamptz>,
        created_at -> Timestamptz,
        decommissioned_at -> Nullable<Timestamptz>,
    }
}

diesel::table! {
    idempotency_keys (name) {
        name -> Bytea,
        asked -> Bytea,
        claim -> Uuid,
        claimed_at -> Timestamptz,
        answer -> Nullable<Bytea>,
    }
}

diesel::table! {
    jobs (id) {
        id -> Uuid,
        host_id -> Uuid,
        repository_id -> Uuid,
        kind -> Text,
        status -> Text,
        partial -> Bool,
        origin -> Text,
        source_group -> Nullable<Text>,
        schedule_id -> Nullable<Uuid>,
        scheduled_at -> Nullable<Timestamptz>,
        attempt -> Int8,
        retry_of -> Nullable<Uuid>,
        requested_by -> Nullable<Text>,
        command -> Jsonb,
        created_at -> Timestamptz,
        dispatched_at -> Nullable<Timestamptz>,
        journal -> Nullable<Text>,
        accepted_at -> Nullable<Timestamptz>,
        started_at -> Nullable<Timestamptz>,
        finished_at -> Nullable<Timestamptz>,
        cancel_requested_at -> Nullable<Timestamptz>,
        began_at -> Nullable<Timestamptz>,
        ended_at -> Nullable<Timestamptz>,
        lost_at -> Nullable<Timestamptz>,
        released_at -> Nullable<Timestamptz>,
        exit_code -> Nullable<Int8>,
        error -> Nullable<Text>,
        stats -> Nullable<Text>,
        progress -> Nullable<Jsonb>,
        outcome -> Text,
        run_id -> Nullable<Uuid>,
        operation_id -> Nullable<Uuid>,
    }
}

diesel::table! {
    log_chunks (job_id, first_seq) {
        job_id -> Uuid,
        first_seq -> Int8,
        last_seq -> Int8,
        data -> Bytea,
        compacted -> Bool,
    }
}

diesel::table! {
    maintenance (repository_id, kind) {
        repository_id -> Uuid,
        kind -> Text,
        cron -> Text,
        timezone -> Text,
        enabled -> Bool,
        subset -> Nullable<Text>,
        interval_seconds -> Int8,
        next_due_at -> Nullable<Timestamptz>,
        last_success_at -> Nullable<Timestamptz>,
        last_subset -> Nullable<Text>,
        overdue_at -> Nullable<Timestamptz>,
        created_at -> Timestamptz,
        updated_at -> Timestamptz,
    }
}

diesel::table! {
    notices (id) {
        id -> Uuid,
        event -> Text,
        at -> Timestamptz,
        data -> Jsonb,
    }
}

diesel::table! {
    operation_skipped (operation_id, host_id) {
        operation_id -> Uuid,
        host_id -> Uuid,
        reason -> Text,
        created_at -> Timestamptz,
    }
}

diesel::table! {
    operations (id) {
        id -> Uuid,
        kind -> Text,
        request -> Jsonb,
        retry_of -> Nullable<Uuid>,
        requested_by -> Nullable<Text>,
        created_at -> Timestamptz,
        canaries -> Int8,
        max_parallel -> Nullable<Int8>,
        stop_after_failures -> Nullable<Int8>,
        jobs -> Int8,
        skipped -> Int8,
        cancel_requested_at -> Nullable<Timestamptz>,
        halted_at -> Nullable<Timestamptz>,
        halt_reason -> Nullable<Text>,
        ended_at -> Nullable<Timestamptz>,
        succeeded -> Int8,
        partial -> Int8,
        failed -> Int8,
        cancelled -> Int8,
    }
}

diesel::table! {
    pauses (id) {
        id -> Uuid,
        host_id -> Nullable<Uuid>,
        repository_id -> Nullable<Uuid>,
        reason -> Text,
        paused_by -> Text,
        since -> Timestamptz,
    }
}

diesel::table! {
    repositories (id) {
        id -> Uuid,
        name -> Text,
        url -> Text,
        username -> Nullable<Text>,
        password -> Bytea,
        credential -> Nullable<Bytea>,
        admin_url -> Nullable<Text>,
        admin_username -> Nullable<Text>,
        admin_password -> Nullable<Bytea>,
        admin_credential -> Nullable<Bytea>,
        has_admin -> Bool,
        append_only -> Bool,
        created_at -> Timestamptz,
        updated_at -> Timestamptz,
        runner_host_id -> Nullable<Uuid>,
        forget_max_snapshots -> Nullable<Int8>,
        forget_max_share -> Nullable<Float8>,
        max_backups -> Nullable<Int8>,
        secret_sources -> Jsonb,
    }
}

diesel::table! {
    repository_stats (repository_id, host_id, field) {
        repository_id -> Uuid,
        host_id -> Uuid,
        field -> Text,
        value -> Jsonb,
        as_of -> Timestamptz,
    }
}

diesel::table! {
    runs (id) {
        id -> Uuid,
        kind -> Text,
        host_id -> Nullable<Uuid>,
        source_group -> Nullable<Text>,
        schedule_id -> Nullable<Uuid>,
        repository_id -> Nullable<Uuid>,
        due_at -> Timestamptz,
        outcome -> Text,
        reason -> Nullable<Text>,
        job_id -> Nullable<Uuid>,
        attempt -> Int8,
        changed_at -> Timestamptz,
        retry_at -> Nullable<Timestamptz>,
    }
}

diesel::table! {
    schedules (id) {
        id -> Uuid,
        host_id -> Uuid,
        cron -> Text,
        timezone -> Text,
        enabled -> Bool,
        source_groups -> Jsonb,
        catch_up_seconds -> Int8,
        bandwidth_up_kbps -> Nullable<Int8>,
        bandwidth_down_kbps -> Nullable<Int8>,
        interval_seconds -> Int8,
        version -> Int8,
        next_due_at -> Nullable<Timestamptz>,
        created_at -> Timestamptz,
        updated_at -> Timestamptz,
        deleted_at -> Nullable<Timestamptz>,
        name -> Nullable<Text>,
    }
}

diesel::table! {
    settings (name) {
        name -> Text,
        value -> Bytea,
    }
}

diesel::table! {
    snapshots (host_id, id) {
        host_id -> Uuid,
        id -> Text,
        short_id -> Text,
        time -> Nullable<Timestamptz>,
        hostname -> Text,
        paths -> Jsonb,
        tags -> Jsonb,
        size_bytes -> Int8,
        file_count -> Int8,
    }
}

diesel::table! {
    source_groups (host_id, name) {
        host_id -> Uuid,
        name -> Text,
        includes -> Jsonb,
        excludes -> Jsonb,
        retention -> Nullable<Jsonb>,
        retry_max -> Int8,
        retry_backoff_seconds -> Int8,
        pre_hook -> Nullable<Text>,
        post_hook -> Nullable<Text>,
        created_at -> Timestamptz,
        updated_at -> Timestamptz,
        rpo_seconds -> Nullable<Int8>,
        success_within_seconds -> Nullable<Int8>,
        last_success_at -> Nullable<Timestamptz>,
        overdue_at -> Nullable<Timestamptz>,
    }
}

diesel::table! {
    stale_locks (repository_id, lock_id) {
        repository_id -> Uuid,
        lock_id -> Text,
        host_id -> Uuid,
        job_id -> Uuid,
        lock -> Jsonb,
        met_at -> Timestamptz,
    }
}

diesel::joinable!(deliveries -> channels (channel_id));
diesel::joinable!(deliveries -> notices (notice_id));
diesel::joinable!(enrollment_tokens -> hosts (host_id));
diesel::joinable!(enrollment_tokens -> repositories (repository_id));
diesel::joinable!(jobs -> hosts (host_id));
diesel::joinable!(jobs -> repositories (repository_id));
diesel::joinable!(log_chunks -> jobs (job_id));
diesel::joinable!(maintenance -> repositories (repository_id));
diesel::joinable!(operation_skipped -> operations (operation_id));
diesel::joinable!(pauses -> hosts (host_id));
diesel::joinable!(pauses -> repositories (repository_id));
diesel::joinable!(repository_stats -> hosts (host_id));
diesel::joinable!(repository_stats -> repositories (repository_id));
diesel::joinable!(runs -> hosts (host_id));
diesel::joinable!(schedules -> hosts (host_id));
diesel::joinable!(snapshots -> hosts (host_id));
diesel::joinable!(source_groups -> hosts (host_id));
diesel::joinable!(stale_locks -> hosts (host_id));
diesel::joinable!(stale_locks -> repositories (repository_id));

diesel::allow_tables_to_appear_in_same_query!(
    api_tokens,
    audit,
    channels,
    conditions,
    deliveries,
    enrollment_tokens,
    hosts,
    idempotency_keys,
    jobs,
    log_chunks,
    maintenance,
    notices,
    operation_skipped,
    operations,
    pauses,
    repositories,
    repository_stats,
    runs,
    schedules,
    settings,
    snapshots,
    source_groups,
    stale_locks,
);
