//! A checker that finds nothing proves nothing: it must find each injected bug.

use fence_simulation::{Mutation, print_figures, run_seed};

fn is_found(mutation: Mutation, invariant: &str) {
    for seed in 0..20_000 {
        let history = run_seed(seed, |config| {
            config.mutation = Some(mutation);
            config.lock = true;
            config.in_memory = false;
        });
        if let Some(violation) = history.violation
            && violation.starts_with(invariant)
        {
            print_figures(format_args!("mutation {mutation:?}: found by seed {seed}: {violation}"));
            return;
        }
    }
    panic!("{mutation:?} is not found");
}

#[test]
fn a_claim_after_the_start_is_found() {
    is_found(Mutation::ClaimAfterStart, "S1");
}

#[test]
fn a_missing_check_of_the_deadline_is_found() {
    is_found(Mutation::NoDeadlineCheck, "S4");
}

#[test]
fn an_answer_before_the_confirmation_is_found() {
    is_found(Mutation::AnswerBeforeConfirmation, "S3");
}

#[test]
fn a_claim_that_is_removed_before_its_answer_is_found() {
    is_found(Mutation::DeleteBeforeAnswer, "S5");
}

#[test]
fn a_retry_after_a_crash_is_found() {
    is_found(Mutation::RetryAfterCrash, "S2");
}

#[test]
fn a_client_that_is_not_looked_for_is_found() {
    is_found(Mutation::ClientNotChecked, "S4");
}

#[test]
fn an_order_without_a_client_is_found() {
    is_found(Mutation::OrderForNobody, "S4");
}

#[test]
fn a_remark_that_counts_as_off_is_found() {
    is_found(Mutation::RemarkCountsAsOff, "S3");
}

#[test]
fn a_second_fence_for_one_death_is_found() {
    is_found(Mutation::SecondFenceForOneDeath, "S4");
}

#[test]
fn a_fence_before_the_death_that_counts_is_found() {
    is_found(Mutation::FenceBeforeDeathCounts, "S3");
}

#[test]
fn one_machine_under_two_names_is_found() {
    is_found(Mutation::OtherNamesForgotten, "S6");
}

#[test]
fn a_watcher_that_does_not_end_is_found() {
    is_found(Mutation::StopForgotten, "stop");
}

#[test]
fn a_stopping_watcher_that_serves_no_free_device_is_found() {
    is_found(Mutation::StopServesNobody, "S6");
}

#[test]
fn waiting_requests_that_keep_an_old_route_are_found() {
    is_found(Mutation::ReloadForgotten, "S6");
}

#[test]
fn a_plug_that_a_new_configuration_has_moved_is_found() {
    is_found(Mutation::MovedPlugForgotten, "S3");
}

#[test]
fn an_identity_that_is_forgotten_is_found() {
    is_found(Mutation::IdentityForgotten, "S2");
}

#[test]
fn too_many_concurrent_executions_on_a_device_are_found() {
    is_found(Mutation::DeviceLimitForgotten, "S6");
}

#[test]
fn two_watchers_that_know_nothing_of_each_other_are_found() {
    is_found(Mutation::WatcherLockIgnored, "S6");
}

#[test]
fn a_power_on_without_a_recorded_outcome_is_found() {
    is_found(Mutation::OnForgottenWhenAnswered, "audit");
}

#[test]
fn a_fence_beside_the_power_on_of_its_target_is_found() {
    is_found(Mutation::FenceBesideItsOn, "S6");
}
