"""What llmrec promises and which tests verify it: a table for tests and suite."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Claim:
    """One promise, or one fault that must have no effect on results.

    Attributes:
        words: the claim as text.
        tests: pytest node ids below `tests/`, without parameters.
        more: environment variables with which its tests try more cases than the quick suite does.
    """

    words: str
    tests: tuple[str, ...]
    more: Mapping[str, str] = field(default_factory=dict)


PROMISES: Mapping[int, Claim] = {
    1: Claim(
        "every recommended item exists, is allowed, is unseen when asked, and is unique",
        (
            "test_recommender.py::test_every_item_exists_is_allowed_unseen_and_unique",
            "test_beam_search.py::test_never_an_invented_a_forbidden_or_a_repeated_item",
            "test_trie.py::test_holds_exactly_the_allowed_items",
        ),
    ),
    2: Claim(
        "text never becomes a control or an item token",
        (
            "test_rendering.py::test_typed_text_never_becomes_a_control_or_item_token",
            "test_rendering.py::test_structure_comes_from_types_alone",
            "attacks/test_injection.py::test_typed_words_stay_words",
            "attacks/test_injection.py::test_titles_and_descriptions_stay_words",
            "attacks/test_injection.py::test_imported_conversations_stay_words",
            "attacks/test_injection.py::test_arguments_of_the_endpoint_stay_words",
            "test_imports.py::test_text_becomes_ids_in_render_only",
        ),
    ),
    3: Claim(
        "roles and history cannot be forged by the client",
        (
            "attacks/test_forgery.py::test_whatever_is_posted_the_model_is_given_the_same",
            "attacks/test_forgery.py::test_kept_conversations_that_were_edited_are_not_believed",
            "test_api.py::test_forged_roles_and_conversations_are_refused",
            "test_app.py::test_roles_and_history_cannot_be_forged",
            "test_saved_conversations.py::test_of_a_forged_export_only_opinions_are_taken",
            "test_saved_conversations.py::test_what_was_changed_or_sealed_elsewhere_is_refused",
        ),
    ),
    4: Claim(
        "decoding equals brute force, alone and in any batch",
        (
            "test_beam_search.py::test_keeping_all_beams_equals_brute_force",
            "test_beam_search.py::test_alone_and_in_any_batch_are_equal",
            "test_beam_search.py::test_every_architecture_equals_brute_force_alone_and_in_a_batch",
            "test_exact_search.py::test_the_same_items_as_scoring_all",
        ),
    ),
    5: Claim(
        "semantic IDs are unique, stable, and the same again on one kind of machine",
        (
            "test_residual_kmeans.py::test_same_seed_same_bytes_other_seed_still_unique",
            "test_residual_kmeans.py::test_codes_are_unique_whatever_the_vectors",
            "test_residual_kmeans.py::test_adding_items_changes_no_existing_code_and_stays_unique",
        ),
    ),
    6: Claim(
        "nothing leaks from test to train",
        (
            "test_finetune.py::test_no_held_out_interaction_changes_a_byte_of_what_is_trained",
            "test_interactions.py::test_changing_anything_held_out_changes_nothing_in_train",
            "test_finetune.py::test_validation_items_of_fusing_users_reach_nothing_but_the_fusion",
        ),
    ),
    7: Claim(
        "metrics are right",
        (
            "test_metrics.py::test_metrics_equal_scikit_learn_and_the_definition_on_1000_cases",
            "test_metrics.py::test_a_collapsed_model_never_beats_chance_with_ties_counted_against_it",
            "test_accuracy.py::test_a_collapsed_model_scores_nothing_even_when_rows_are_listed_by_popularity",
        ),
    ),
    8: Claim(
        "training resumes exactly",
        (
            "test_training.py::test_kill_9_at_random_moments_loses_nothing",
            "test_training.py::test_an_interrupted_run_saves_and_goes_on_to_the_same_bytes",
            "test_finetune.py::test_a_torn_newest_checkpoint_is_passed_over_with_a_message",
        ),
    ),
    9: Claim(
        "artifacts are all or nothing",
        (
            "test_atomic.py::test_a_fault_at_any_write_keeps_the_old_artifact",
            "test_atomic.py::test_a_writer_killed_at_any_moment_loses_nothing",
            "test_atomic.py::test_single_files_are_replaced_whole",
            "test_result_file.py::test_a_full_disk_leaves_the_old_file",
        ),
    ),
    10: Claim(
        "wrong pairs refuse to load",
        (
            "test_finetune.py::test_a_saved_model_loads_and_wrong_pairs_refuse",
            "test_artifacts.py::test_wrong_pairs_name_both_fingerprints",
            "test_artifacts.py::test_one_flipped_byte_is_refused",
        ),
    ),
    11: Claim(
        "loading runs no code",
        (
            "attacks/test_model_dirs.py::test_a_hostile_model_directory_is_one_clear_error_and_runs_nothing",
            "attacks/test_model_dirs.py::test_files_that_could_run_code_are_refused_at_the_public_door",
            "test_artifacts.py::test_loading_a_hostile_directory_opens_and_imports_nothing",
            "test_artifacts.py::test_symlinks_and_names_outside_are_refused",
            "test_hub.py::test_hostile_repositories_are_refused_and_leave_nothing",
            "test_imports.py::test_nothing_unpickles_or_evaluates",
            "attacks/test_model_parts.py::test_parts_that_do_not_fit_are_one_clear_error",
            "attacks/test_model_parts.py::test_what_refresh_and_removal_read_is_one_clear_error_too",
        ),
    ),
    12: Claim(
        "hostile files do not crash the readers",
        (
            "attacks/test_hostile_files.py::test_hostile_bytes_end_in_a_clear_error",
            "attacks/test_hostile_files.py::test_damaged_files_end_in_a_clear_error",
            "test_readers.py::test_hostile_bytes_give_data_or_a_data_error",
            "test_readers.py::test_damaged_files_give_data_or_a_data_error",
            "test_readers_shops.py::test_damaged_files_give_data_or_a_data_error",
            "test_table.py::test_hostile_bytes_end_in_a_clear_error_or_a_catalogue",
            "test_readers.py::test_lines_are_bounded",
            "attacks/test_hostile_files.py::test_a_small_file_of_requests_that_unpacks_large_is_refused_while_it_is_small",
            "attacks/test_hostile_files.py::test_a_small_table_that_unpacks_large_is_refused_while_it_is_small",
            "attacks/test_data_dirs.py::test_hostile_prepared_data_is_one_clear_error",
            "attacks/test_data_dirs.py::test_small_files_that_unpack_large_are_refused_while_they_are_small",
        ),
    ),
    13: Claim(
        "item text cannot run, phone home or restyle the page",
        (
            "test_cards.py::test_nothing_from_outside_becomes_markup",
            "test_cards.py::test_markdown_finds_nothing_to_read_in_a_field",
            "test_browser.py::test_sixty_payloads_stay_text",
            "test_app.py::test_the_page_comes_with_strict_headers",
            "test_app.py::test_the_page_loads_from_here_only",
        ),
    ),
    14: Claim(
        "instructions hidden in item text do not move items",
        (
            "attacks/test_hidden_instructions.py::test_the_language_model_reads_no_item_text_when_it_ranks",
            "attacks/test_hidden_instructions.py::test_items_rise_as_often_as_they_fall",
            "attacks/test_hidden_instructions.py::test_an_order_lifts_no_item_of_the_shipped_model",
        ),
        {"LLMREC_TEST_SERVED": "1"},
    ),
    15: Claim(
        "answers claim only what the catalogue says",
        (
            "test_recommender.py::test_talk_says_nothing_that_is_not_shown",
            "test_recommender.py::test_unbacked_sentences_are_left_out",
            "test_recommender.py::test_reasons_name_only_what_the_catalogue_holds",
            "test_backend.py::test_sentences_that_the_catalogue_does_not_back_are_dropped",
            "test_chat.py::test_why_and_about_say_only_what_is_known",
            "attacks/test_injection.py::test_a_servers_reply_that_gives_orders_changes_no_list",
        ),
    ),
    16: Claim(
        "requests are bounded",
        (
            "attacks/test_bounds.py::test_what_is_too_large_is_refused_in_fifty_milliseconds",
            "attacks/test_bounds.py::test_a_body_that_does_not_come_is_given_up",
            "test_app.py::test_large_bodies_are_refused_quickly",
            "test_app.py::test_bad_requests_are_answered_in_words",
            "test_chat.py::test_bounds_are_answered_quickly_and_change_nothing",
            "test_chat.py::test_the_clock_cuts_a_reply_short",
            "test_parser.py::test_a_message_full_of_unknown_names_costs_a_few_look_ups",
            "test_text_generation.py::test_words_stop_when_told_and_at_every_limit",
        ),
    ),
    17: Claim(
        "load is bounded",
        (
            "attacks/test_flood.py::test_fifty_clients_are_answered_or_refused_and_never_mixed",
            "attacks/test_flood.py::test_a_thousand_turns_keep_memory_threads_and_files_flat",
            "test_app.py::test_the_queue_is_bounded_and_cannot_be_passed_by",
            "test_app.py::test_sessions_are_bounded_and_ids_checked",
        ),
    ),
    18: Claim(
        "sessions are separate",
        (
            "test_chat.py::test_sessions_are_separate",
            "test_api.py::test_conversations_side_by_side_do_not_mix",
            "test_chat.py::test_changing_the_visitor_while_a_list_is_made_leaks_nothing_into_the_new_one",
            "test_prefix_cache.py::test_no_bit_depends_on_what_was_asked_before",
            "test_prefix_cache.py::test_many_threads_get_their_own_answers",
        ),
    ),
    19: Claim(
        "exposed means authenticated",
        (
            "test_app.py::test_exposed_means_authenticated",
            "test_app.py::test_with_a_password_nothing_is_open",
            "test_settings.py::test_mcp_is_for_this_machine_only",
        ),
    ),
    20: Claim(
        "no personal text in logs",
        (
            "test_feedback.py::test_a_dialogue_leaves_no_sentence_anywhere_unless_the_visitor_allows_it",
            "test_feedback.py::test_nothing_says_who_it_was_and_words_only_when_given",
            "test_chat.py::test_without_words_the_list_stands_and_no_text_is_logged",
            "attacks/test_network.py::test_a_served_conversation_reaches_for_nothing_and_logs_no_word",
            "attacks/test_network.py::test_whatever_is_posted_to_an_event_is_in_no_log",
            "attacks/test_network.py::test_a_failure_is_told_by_its_kind_and_place_alone",
        ),
    ),
    21: Claim(
        "no network at rest",
        (
            "attacks/test_network.py::test_a_served_conversation_reaches_for_nothing_and_logs_no_word",
            "attacks/test_network.py::test_the_guard_of_the_whole_suite_refuses_and_counts",
            "test_recommender.py::test_nothing_reaches_for_the_network",
            "test_recommender.py::test_importing_the_library_opens_no_socket",
            "test_download.py::test_offline_asks_neither_hub_nor_site",
        ),
    ),
    22: Claim(
        "the same bytes on one kind of machine, whatever the batch, the shards or the threads",
        (
            "test_recommender.py::test_one_and_many_give_the_same_bytes",
            "test_recommender.py::test_the_thread_count_changes_no_byte",
            "test_inner_product.py::test_a_score_has_the_same_bits_alone_in_any_batch_and_with_any_threads",
            "test_batch.py::test_the_same_bytes_whatever_the_form_and_the_parts",
            "test_batch.py::test_shards_one_after_the_other_are_the_whole",
            "test_training.py::test_training_twice_gives_the_same_bytes",
        ),
    ),
    23: Claim(
        "it degrades, it does not die",
        (
            "test_chat.py::test_without_words_the_list_stands_and_no_text_is_logged",
            "test_backend.py::test_whatever_it_does_the_local_model_writes_with_a_notice",
            "test_backend.py::test_no_server_at_all",
            "test_chat.py::test_the_clock_cuts_a_reply_short",
            "test_faults.py::test_a_cache_that_cannot_be_written_costs_time_only",
        ),
    ),
    24: Claim(
        "packed, accumulated and plain training are equal",
        (
            "test_training.py::test_packed_equals_unpacked_equals_the_plain_model",
            "test_training.py::test_one_pack_of_many_equals_many_accumulated",
            "test_processes.py::test_two_processes_give_the_trajectory_of_twice_the_accumulation",
        ),
    ),
    25: Claim(
        "a clean supply chain",
        (
            "test_supply_chain.py::test_every_requirement_is_pinned_above_its_floor",
            "test_supply_chain.py::test_every_pin_has_hashes_and_nothing_else_is_installed_with_it",
            "test_supply_chain.py::test_nothing_that_was_compromised_is_required",
            "test_supply_chain.py::test_every_waiver_of_the_audit_says_why",
            "test_supply_chain.py::test_the_audit_is_clean",
        ),
        {"LLMREC_TEST_AUDIT": "1"},
    ),
}
