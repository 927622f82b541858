//! The tables for diesel: one schema for both databases. The migrations are the source.

use super::columns::{Document, Identifier, Instant};

macro_rules! tables {
    ($($name:ident ($key:ident $(, $more:ident)*) { $($column:ident -> $type:ty,)+ })+) => {
        $(diesel::table! {
            use diesel::sql_types::*;
            use super::{Document, Identifier, Instant};
            $name ($key $(, $more)*) { $($column -> $type,)+ }
        })+
    };
}

tables! {
    keys (id) {
        id -> Identifier,
        name -> Text,
        scopes -> Text,
        prefix -> Text,
        hash -> Text,
        created_at -> Instant,
        last_used_at -> Nullable<Instant>,
        revoked_at -> Nullable<Instant>,
    }

    services (slug) {
        slug -> Text,
        name -> Text,
        description -> Nullable<Text>,
        owner -> Nullable<Text>,
        repository_url -> Nullable<Text>,
        ignore_github_deployments -> Bool,
        created_at -> Instant,
        updated_at -> Instant,
        revision -> Integer,
    }

    environments (slug) {
        slug -> Text,
        name -> Text,
        tier -> Text,
        required_approvals -> Integer,
        allow_self_approval -> Bool,
        approval_ttl_hours -> Integer,
        require_scan -> Bool,
        predecessor -> Nullable<Text>,
        soak_minutes -> Integer,
        rollback_needs_approval -> Bool,
        ignore_github_deployments -> Bool,
        created_at -> Instant,
        updated_at -> Instant,
        revision -> Integer,
    }

    releases (id) {
        id -> Identifier,
        service -> Text,
        version -> Text,
        git_sha -> Nullable<Text>,
        image_digest -> Nullable<Text>,
        committed_at -> Nullable<Instant>,
        source_url -> Nullable<Text>,
        commits -> Nullable<Document>,
        scan -> Document,
        created_by -> Text,
        created_at -> Instant,
        revision -> Integer,
        last_commit_at -> Nullable<Instant>,
        at -> Nullable<Instant>,
    }

    deployments (id) {
        id -> Identifier,
        service -> Text,
        environment -> Text,
        release_id -> Identifier,
        version -> Text,
        git_sha -> Nullable<Text>,
        image_digest -> Nullable<Text>,
        state -> Text,
        kind -> Text,
        unplanned -> Bool,
        requested_by -> Text,
        source -> Text,
        external_id -> Nullable<Text>,
        run_url -> Nullable<Text>,
        reason -> Nullable<Text>,
        previous_id -> Nullable<Identifier>,
        rollback_of -> Nullable<Identifier>,
        requested_at -> Instant,
        started_at -> Nullable<Instant>,
        finished_at -> Nullable<Instant>,
        revision -> Integer,
        decision -> Nullable<Document>,
        ungated -> Bool,
        expires_at -> Nullable<Instant>,
        recorded_by -> Nullable<Text>,
        voided_at -> Nullable<Instant>,
        retired_at -> Nullable<Instant>,
        rollback -> Bool,
        before_commit -> Bool,
        counts_from -> Nullable<Instant>,
        image_added_later -> Bool,
    }

    derived_places (service, environment) {
        service -> Text,
        environment -> Text,
        derived_at -> Nullable<Instant>,
    }

    approvals (id) {
        id -> Identifier,
        release_id -> Identifier,
        service -> Text,
        environment -> Text,
        image_digest -> Nullable<Text>,
        decision -> Text,
        approver -> Text,
        comment -> Nullable<Text>,
        source -> Text,
        run_url -> Nullable<Text>,
        review_id -> Nullable<Text>,
        recorded_by -> Text,
        created_at -> Instant,
        expires_at -> Instant,
        consumed_by -> Nullable<Identifier>,
        at -> Nullable<Instant>,
    }

    freezes (id) {
        id -> Identifier,
        environment -> Nullable<Text>,
        service -> Nullable<Text>,
        reason -> Text,
        starts_at -> Instant,
        ends_at -> Nullable<Instant>,
        weekly -> Nullable<Document>,
        allow_rollback -> Bool,
        ended_at -> Nullable<Instant>,
        created_by -> Text,
        created_at -> Instant,
        revision -> Integer,
    }

    freeze_overrides (id) {
        id -> Identifier,
        freeze_id -> Identifier,
        service -> Text,
        environment -> Text,
        version -> Text,
        actor -> Text,
        reason -> Text,
        created_at -> Instant,
        consumed_by -> Nullable<Identifier>,
        image_digest -> Nullable<Text>,
        expires_at -> Nullable<Instant>,
    }

    incidents (id) {
        id -> Identifier,
        service -> Text,
        environment -> Text,
        title -> Text,
        severity -> Text,
        detected_at -> Instant,
        resolved_at -> Nullable<Instant>,
        created_by -> Text,
        created_at -> Instant,
        revision -> Integer,
    }

    incident_deployments (incident_id, deployment_id, role) {
        incident_id -> Identifier,
        deployment_id -> Identifier,
        role -> Text,
    }

    events (seq) {
        seq -> BigInt,
        at -> Instant,
        actor -> Text,
        action -> Text,
        entity -> Text,
        entity_id -> Text,
        service -> Nullable<Text>,
        environment -> Nullable<Text>,
        payload -> Document,
        key_id -> Nullable<Identifier>,
        request_id -> Nullable<Text>,
    }

    idempotency_keys (key_id, key) {
        key_id -> Identifier,
        key -> Text,
        fingerprint -> Text,
        status -> Integer,
        location -> Nullable<Text>,
        etag -> Nullable<Text>,
        body -> Text,
        expires_at -> Instant,
    }

    deliveries (id) {
        id -> Text,
        event -> Text,
        action -> Nullable<Text>,
        repository -> Nullable<Text>,
        subject -> Nullable<Text>,
        outcome -> Text,
        detail -> Text,
        deployment_id -> Nullable<Identifier>,
        digest -> Text,
        body -> Nullable<Text>,
        received_at -> Instant,
    }
}

diesel::allow_tables_to_appear_in_same_query!(
    services,
    environments,
    releases,
    deployments,
    incidents,
    incident_deployments
);
