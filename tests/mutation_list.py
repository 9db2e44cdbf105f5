"""Ways to break promises on purpose, and the test that must notice each; `mutations` makes them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutation:
    """One way to break a promise.

    Attributes:
        promise: its number.
        name: what is broken.
        file: of the project.
        old: text that stands there once.
        new: what it becomes.
        test: the pytest node id that must notice.
    """

    promise: int
    name: str
    file: str
    old: str
    new: str
    test: str


MUTATIONS = (
    Mutation(
        1,
        "items that were excluded come back",
        "llmrec/recommender.py",
        "        mask[out] = False\n",
        "",
        "tests/test_recommender.py::test_every_item_exists_is_allowed_unseen_and_unique",
    ),
    Mutation(
        2,
        "text is encoded with the control tokens",
        "llmrec/lm/rendering.py",
        'data["added_tokens"], data["post_processor"] = [], None',
        'data["post_processor"] = None',
        "tests/test_rendering.py::test_typed_text_never_becomes_a_control_or_item_token",
    ),
    Mutation(
        3,
        "conversations are believed without their seal",
        "app/web/saved_conversations.py",
        "if len(raw) < 32 or not hmac.compare_digest(raw[:32], _tag(raw[32:], key)):",
        "if len(raw) < 32:",
        "tests/attacks/test_forgery.py::test_kept_conversations_that_were_edited_are_not_believed",
    ),
    Mutation(
        3,
        "a key of any length is taken",
        "app/web/saved_conversations.py",
        "return key if len(key) == _KEY_BYTES else None",
        "return key if path.exists() else None",
        "tests/attacks/test_forgery.py::test_an_empty_key_seals_nothing",
    ),
    Mutation(
        4,
        "the prior of the trie is left out",
        "llmrec/decoding/trie_scoring.py",
        "logits.gather(1, codes) + prior",
        "logits.gather(1, codes)",
        "tests/test_beam_search.py::test_keeping_all_beams_equals_brute_force",
    ),
    Mutation(
        9,
        "a file is written in place",
        "llmrec/storage/atomic.py",
        'temporary = path.parent / f".{path.name}.{secrets.token_hex(6)}.tmp"\n    try:\n'
        '        with temporary.open("xb")',
        'temporary = path\n    try:\n        with temporary.open("wb")',
        "tests/test_atomic.py::test_single_files_are_replaced_whole",
    ),
    Mutation(
        10,
        "fingerprints are not compared",
        "llmrec/storage/artifacts.py",
        "if expected != actual:",
        "if False:",
        "tests/test_artifacts.py::test_wrong_pairs_name_both_fingerprints",
    ),
    Mutation(
        11,
        "pickles are let in",
        "llmrec/storage/artifacts.py",
        "pkl|pickle|pt|pth|bin|",
        "",
        "tests/attacks/test_model_dirs.py::test_files_that_could_run_code_are_refused_at_the_public_door",
    ),
    Mutation(
        11,
        "what parsers raise goes through",
        "llmrec/checkpoint/pretrained.py",
        "    with validation.loading_from(Path(path)):\n        return",
        "    if True:\n        return",
        "tests/attacks/test_model_dirs.py::test_a_hostile_model_directory_is_one_clear_error_and_runs_nothing",
    ),
    Mutation(
        11,
        "interactions may name any row",
        "llmrec/data/dataset.py",
        "    if len(outside):",
        "    if False:",
        "tests/attacks/test_data_dirs.py::test_hostile_prepared_data_is_one_clear_error",
    ),
    Mutation(
        11,
        "parts of any number of items are put together",
        "llmrec/checkpoint/validation.py",
        "        if size != n:",
        "        if False:",
        "tests/attacks/test_model_parts.py::test_parts_that_do_not_fit_are_one_clear_error",
    ),
    Mutation(
        12,
        "lines may be of any length",
        "llmrec/data/readers/common.py",
        "if len(raw) > LINE_LIMIT:",
        "if False:",
        "tests/test_readers.py::test_lines_are_bounded",
    ),
    Mutation(
        13,
        "the page may run scripts from anywhere",
        "app/server/guard.py",
        "script-src 'self' 'nonce-{nonce}'",
        "script-src * 'unsafe-inline'",
        "tests/test_app.py::test_the_page_comes_with_strict_headers",
    ),
    Mutation(
        14,
        "what lies far from a wish is told apart by its text",
        "llmrec/ranking/scorer.py",
        "out[said] = np.maximum(found, np.quantile(found, UNINFORMATIVE_SHARE, axis=1, keepdims=True))",
        "out[said] = found",
        "tests/test_scorer.py::test_of_an_item_far_from_a_message_the_text_can_change_without_a_trace",
    ),
    Mutation(
        15,
        "sentences are not checked",
        "llmrec/recommender.py",
        "if sentence and sentence not in said and checker.grounded(sentence, shown):",
        "if sentence and sentence not in said:",
        "tests/test_recommender.py::test_unbacked_sentences_are_left_out",
    ),
    Mutation(
        16,
        "a body may take for ever",
        "app/server/guard.py",
        "await asyncio.wait_for(_body(receive, self._body_bytes), BODY_SECONDS)",
        "await _body(receive, self._body_bytes)",
        "tests/attacks/test_bounds.py::test_a_body_that_does_not_come_is_given_up",
    ),
    Mutation(
        16,
        "conversations never end",
        "llmrec/dialogue/chat.py",
        "if len(session.turns) >= self.limits.turns:",
        "if False:",
        "tests/attacks/test_bounds.py::test_what_is_too_large_is_refused_in_fifty_milliseconds",
    ),
    Mutation(
        17,
        "the queue has no end",
        "app/web/wiring.py",
        "max_size=services.settings.queue",
        "max_size=None",
        "tests/attacks/test_flood.py::test_fifty_clients_are_answered_or_refused_and_never_mixed",
    ),
    Mutation(
        17,
        "visitors are never forgotten",
        "app/server/guard.py",
        "            if not session.busy:\n                del",
        "            if False:\n                del",
        "tests/test_app.py::test_sessions_are_bounded_and_ids_checked",
    ),
    Mutation(
        18,
        "all visitors share one session",
        "app/server/guard.py",
        'key = (user or "", id)',
        'key = ("", "")',
        "tests/attacks/test_flood.py::test_fifty_clients_are_answered_or_refused_and_never_mixed",
    ),
    Mutation(
        19,
        "no password is asked for",
        "app/server/settings.py",
        "if not self.local and self.password is None:",
        "if False:",
        "tests/test_app.py::test_exposed_means_authenticated",
    ),
    Mutation(
        20,
        "what failed is logged with its message",
        "llmrec/dialogue/chat.py",
        '_log.warning("no words: %s", type(error).__name__)',
        '_log.warning("no words: %s", error)',
        "tests/test_chat.py::test_without_words_the_list_stands_and_no_text_is_logged",
    ),
    Mutation(
        21,
        "the network is open to tests",
        "tests/conftest.py",
        "sys.addaudithook(_stay_here)",
        "",
        "tests/attacks/test_network.py::test_the_guard_of_the_whole_suite_refuses_and_counts",
    ),
    Mutation(
        23,
        "a failing language model ends the turn",
        "llmrec/dialogue/chat.py",
        "        except Exception as error:\n            # the type only",
        "        except UserError as error:\n            # the type only",
        "tests/test_chat.py::test_without_words_the_list_stands_and_no_text_is_logged",
    ),
    Mutation(
        23,
        "a damaged cache ends the start",
        "llmrec/encoders/text_cache.py",
        "except sqlite3.DatabaseError:  # damaged",
        "except KeyError:  # damaged",
        "tests/test_faults.py::test_a_cache_that_cannot_be_written_costs_time_only",
    ),
)
