//! One contract, two databases: the same tests on SQLite and on a real PostgreSQL.

use std::sync::{Arc, OnceLock};

use acceptance::postgres::Postgres;
use clock::SystemRng;
use domain::{
    AlertKind, BuiltInCollection, CertificateState, CollectionName, CollectionRules, DeviceFacts,
    DeviceId, DeviceState, DeviceTransition, HardwareUuid, KeyDigest, Pin, RenewalScope,
    RevocationReason, Rng, Role, SerialNumber, Timestamp, TokenDigest, Window,
};
use store::*;

mod compliance;
mod contract;
mod fleet;
mod identity;
mod memberships;
mod results;

/// A database of a test's own.
struct Place {
    location: Location,
    _folder: Option<tempfile::TempDir>,
}

impl Place {
    fn sqlite() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let location = Location::Sqlite(folder.path().join("site.db"));
        Self {
            location,
            _folder: Some(folder),
        }
    }

    fn postgres() -> Self {
        static SERVER: OnceLock<Postgres> = OnceLock::new();
        let server = SERVER.get_or_init(|| Postgres::start().expect("a PostgreSQL server"));
        let location = Location::Postgres(server.database().expect("a database"));
        Self {
            location,
            _folder: None,
        }
    }

    async fn open(&self) -> Store {
        self.open_as("test").await
    }

    /// As a node of that name.
    async fn open_as(&self, node: &str) -> Store {
        Store::open(&self.location, node, Arc::new(SystemRng))
            .await
            .expect("opens")
    }
}

macro_rules! store_contract {
    ($($test:ident),* $(,)?) => {
        mod sqlite {
            $(#[tokio::test]
            async fn $test() { super::contract::$test(super::Place::sqlite()).await; })*
        }
        mod postgres {
            $(#[tokio::test]
            async fn $test() { super::contract::$test(super::Place::postgres()).await; })*
        }
    };
}

store_contract!(
    a_lost_answer_gives_the_same_certificate,
    a_batch_keeps_what_is_good_and_names_what_is_not,
    a_first_use_supersedes_older_certificates,
    a_first_use_spends_the_permission_and_takes_the_place,
    what_happens_again_is_one_open_alert,
    a_moment_goes_back_only_when_it_is_accepted,
    states_follow_their_diagram,
    leaving_revokes_and_the_revocations_are_listed,
    deleting_a_device_keeps_its_revoked_certificates,
    lists_are_walked_in_pages_without_gap_or_repetition,
    the_audit_log_verifies_and_tells_what_was_changed,
    a_hundred_writers_at_once_lose_nothing,
    a_request_may_have_more_changes_than_one_statement_takes,
    a_database_belongs_to_one_site,
    a_newer_schema_is_refused,
    facts_and_last_seen_are_kept,
    collections_have_members,
    an_order_moves_what_was_issued_before_it,
    an_order_concerns_what_was_issued_while_the_clock_was_ahead,
    orders_are_for_what_is_there_and_not_without_number,
    two_devices_that_claim_one_hardware_are_a_conflict,
    merged_records_are_read_from_the_one_that_stays,
    what_was_deleted_is_forgotten_and_the_log_still_holds,
    much_is_forgotten_in_steps,
    a_revision_never_changes_and_unchanged_rules_keep_their_numbers,
    what_is_used_is_not_deleted,
    no_baseline_is_a_part_of_itself,
    two_nodes_do_not_close_a_cycle_together,
    a_deployment_comes_to_revisions_and_rules,
    a_policy_key_is_noted_once,
    an_alert_about_the_site_is_open_once,
    the_revisions_of_an_item_are_bounded,
    a_revision_is_read_as_devices_get_it,
    each_epoch_is_higher_than_those_before,
    a_collection_aims_what_depends_on_its_members,
    exemptions_end_and_stay_in_the_records,
    a_command_is_for_one_device_and_done_once,
    what_a_device_says_of_its_policy_is_kept,
    rules_choose_members,
    rules_that_cannot_hold_are_refused,
    what_happens_to_a_device_changes_its_memberships_alone,
    memberships_change_with_time_and_without_an_event,
    last_seen_times_change_memberships,
    an_evaluation_goes_in_steps_and_begins_anew_when_rules_change,
    a_preview_counts_and_shows_the_first,
    results_are_applied_once,
    what_was_found_is_kept_with_its_time,
    a_deployment_stands_as_its_worst_rule,
    who_enters_and_who_leaves_counts,
    an_exemption_counts_until_its_end,
    who_is_exempt_changes_at_once,
    what_is_too_old_is_forgotten,
    who_is_exempt_does_not_depend_on_compliance,
    clocks_that_differ_give_no_overlaps,
    the_past_can_be_asked,
    results_go_with_their_device_and_history_stays_with_the_merged,
    too_little_compliance_is_one_alert,
    sums_are_right_after_whatever_happens,
    sums_are_right_while_a_deployment_changes,
);
