"""What once went wrong, by kind, and the test that holds it now.

A: wrong results without a word, B: raw or misleading errors, C: losses, D: edits, secrets and code, E: smaller things.
"""

import ast
from pathlib import Path

import pytest

HERE = Path(__file__).parent
# (fault, in a few words, the test that holds it)
HELD = [
    (
        "A1",
        "the last part of a path names the layer, not a folder above",
        "sae/test_settings.py::test_a_study_folder_above_a_release_decides_nothing",
    ),
    (
        "A1",
        "a path that states one layer is not overruled",
        "sae/test_settings.py::test_the_last_part_of_a_path_that_states_a_layer_counts",
    ),
    (
        "A2",
        "the name of the folder the project lies in says nothing",
        "sae/test_settings.py::test_the_name_of_a_folder_above_never_decides",
    ),
    (
        "A3",
        "settings that change a dictionary's function are known or refused",
        "sae/test_settings.py::test_what_changes_the_function_is_refused_with_advice",
    ),
    (
        "A4",
        "edits do not depend on the norms of decoder rows",
        "sae/test_rescaling.py::test_edits_do_not_depend_on_free_scales",
    ),
    (
        "A5",
        "an edit of the MLP takes no dictionary of another place",
        "sae/test_sites.py::test_an_edit_of_the_mlp_refuses_dictionaries_of_other_places",
    ),
    (
        "A6",
        "a harvest inside an edit is another harvest",
        "data/test_activations.py::test_inside_an_edit_it_is_another_harvest",
    ),
    ("A7", "no export while an edit is on", "edits/test_identity.py::test_export_and_save_are_refused_inside_a_block"),
    (
        "A8",
        "an edit is for its own weights only",
        "edits/test_identity.py::test_another_model_of_the_same_name_and_shapes_is_refused",
    ),
    ("A8", "an edit is not put on its own export", "edits/test_identity.py::test_an_edit_is_refused_by_its_own_export"),
    (
        "A9",
        "a change too small for the dtype is reported as none",
        "edits/test_values.py::test_an_edit_of_a_thousandth_changes_nothing_in_bfloat16_and_says_so",
    ),
    (
        "A10",
        "training in half precision moves float32 copies",
        "edits/test_training.py::test_in_half_precision_the_masters_move_and_the_loss_is_that_of_float32",
    ),
    (
        "A10",
        "so do erasers and teaching",
        "edits/test_training.py::test_erasers_and_teaching_move_what_is_left_after_rounding",
    ),
    ("A11", "multipliers of Granite enter the readout", "models/test_architecture.py::test_granite_by_hand"),
    (
        "A11",
        "an unknown scale of the logits is seen at load",
        "models/test_architecture.py::test_a_scale_or_cap_of_the_logits_that_is_not_known_would_be_seen",
    ),
    ("A12", "values of concept files are text", "data/test_concept_files.py::test_values_are_text_as_written"),
    ("A13", "unknown keys and wrong types are named", "data/test_concept_files.py::test_what_is_wrong_is_one_sentence"),
    ("A14", "special tokens in a text are text", "data/test_corpora.py::test_special_tokens_in_a_text_are_text"),
    ("A14", "nothing infinite is stored", "data/test_activations.py::test_what_overflows_float16_is_refused"),
    (
        "A15",
        "spaces at the edges of options do not count",
        "models/test_options.py::test_spaces_at_the_edges_of_an_option_do_not_matter",
    ),
    ("A16", "no text beyond the context", "models/test_tokens.py::test_the_context_is_exact"),
    ("A16", "no row beyond the context", "data/test_corpora.py::test_rows_do_not_leave_the_context"),
    (
        "A17",
        "a training goes on with its own data only",
        "sae/test_before_training.py::test_training_goes_on_with_the_same_data_only",
    ),
    (
        "A18",
        "a dictionary is harvested and spliced at its own site",
        "sae/test_sites.py::test_behind_a_norm_other_activations_are_harvested_and_spliced",
    ),
    (
        "A18",
        "features are found where their dictionary reads",
        "erasure/test_paper_profile.py::test_features_are_found_by_what_the_dictionary_reads",
    ),
    (
        "A19",
        "learning rates are measured on the original",
        "attacks/test_rates.py::test_a_rate_is_measured_on_the_original",
    ),
    (
        "A19",
        "where none is borne, it is said",
        "attacks/test_rates.py::test_no_rate_is_borne_and_nothing_silently_falls_back",
    ),
    (
        "A19",
        "the command takes them",
        "attacks/test_suite.py::test_the_rates_of_the_verb_attack_are_the_models_or_those_asked_for",
    ),
    (
        "A20",
        "what the original cannot do is not measurable",
        "evaluation/test_scorecard.py::test_what_the_original_cannot_do_is_not_measurable",
    ),
    ("A21", "an error is no result of a table", "experiments/test_lab.py::test_only_what_is_not_possible_is_a_result"),
    (
        "A21",
        "nor is a damaged file of a search",
        "evaluation/test_strength.py::test_a_damaged_file_of_cells_stops_the_search_and_is_no_result",
    ),
    (
        "A22",
        "a discarded run leaves no file to the next",
        "core/test_store.py::test_a_fresh_start_sees_no_file_of_an_earlier_run",
    ),
    ("A23", "a gap that may be none has no shares", "core/test_shares.py::test_a_gap_that_may_be_none_has_no_shares"),
    (
        "A24",
        "words of several tokens give no signs",
        "erasure/test_pisces.py::test_signs_of_words_that_are_no_token_or_never_seen",
    ),
    ("A25", "factors of an edit multiply", "edits/test_values.py::test_factors_multiply"),
    (
        "A26",
        "a token that outweighs all others is named",
        "sae/test_before_training.py::test_a_token_that_holds_the_variance_is_named",
    ),
    (
        "A27",
        "a student copy runs with exercises left open",
        "notebooks/test_student_copies.py::test_no_cell_asserts_on_an_exercise",
    ),
    ("B1", "concepts load under any locale", "data/test_concept_files.py::test_any_locale_will_do"),
    ("B1", "files of other encodings are named", "data/test_concept_files.py::test_files_that_are_no_concept_at_all"),
    ("B2", "degenerate activations", "sae/test_before_training.py::test_degenerate_activations"),
    ("B2", "degenerate texts", "models/test_bad_input.py::test_bad_input_gets_one_sentence"),
    ("B2", "degenerate lists of texts", "data/test_corpora.py::test_texts_and_sizes_that_make_no_sense"),
    ("B3", "more options than letters", "evaluation/test_scorecard.py::test_nine_options_have_no_letters"),
    ("B4", "mixtures of experts", "models/test_architecture.py::test_mixtures_of_experts_are_refused"),
    ("B5", "names of places as the Hub writes them", "sae/test_settings.py::test_hub_style_names_of_places"),
    ("B6", "the unembedding of a tied model", "edits/test_values.py::test_names_that_the_model_does_not_have"),
    ("B7", "Llamascopium", "sae/test_transcoders.py::test_llamascopium_both_releases"),
    ("B7", "dictionary_learning", "sae/test_convert.py::test_the_command"),
    (
        "B7",
        "a training that is not finished",
        "sae/test_settings.py::test_an_unfinished_batchtopk_training_is_read_with_its_threshold",
    ),
    (
        "B8",
        "norms of single tokens cannot be folded",
        "sae/test_settings.py::test_what_changes_the_function_is_refused_with_advice",
    ),
    ("B9", "GGUF files", "models/test_language_model.py::test_a_gguf_file_or_a_folder_of_them"),
    ("B10", "an exception without a text", "models/test_registry.py::test_an_exception_without_a_text_has_a_reason"),
    (
        "C1",
        "a folder is old or new at every moment",
        "core/test_files.py::test_a_folder_is_old_or_new_when_its_writer_is_killed_at_any_step",
    ),
    ("C2", "writers of one folder", "core/test_files.py::test_writers_of_one_folder_do_not_hurt_each_other"),
    ("C2", "trainings of one folder", "sae/test_before_training.py::test_two_trainings_of_one_folder"),
    (
        "C3",
        "an interrupt while the old folder goes",
        "core/test_files.py::test_an_interrupt_while_the_old_folder_is_removed",
    ),
    ("C4", "a row that was cut is computed again", "core/test_store.py::test_a_torn_last_line_is_no_cell"),
    ("C4", "cells stand or fall together", "core/test_store.py::test_cells_that_belong_together_are_kept_together"),
    (
        "C5",
        "tables that do not fit are not merged",
        "core/test_store.py::test_parts_that_do_not_fit_are_refused_and_nothing_is_written",
    ),
    ("C6", "a second writer is told", "core/test_store.py::test_a_second_writer_is_told_and_nothing_is_lost"),
    (
        "C7",
        "a harvest without its data begins again",
        "data/test_activations.py::test_an_interrupted_harvest_without_its_data_begins_again",
    ),
    (
        "C8",
        "killed at any step, a table and its files agree",
        "core/test_store.py::test_killed_at_every_step_of_a_run_and_of_its_end",
    ),
    (
        "C9",
        "outputs of tables are checked first",
        "core/test_store.py::test_an_output_that_cannot_be_written_is_refused_before_the_work",
    ),
    (
        "C9",
        "outputs of erase are checked first",
        "erasure/test_method.py::test_outputs_are_checked_before_a_model_is_loaded",
    ),
    (
        "C9",
        "outputs of label are checked first",
        "autointerp/test_labels.py::test_the_command_line_refuses_before_it_loads_anything",
    ),
    (
        "C9",
        "folders of dictionaries are checked first",
        "sae/test_before_training.py::test_a_folder_that_cannot_be_made_is_named_first",
    ),
    ("C10", "room on the disk is reserved", "data/test_activations.py::test_room_on_the_disk_is_reserved"),
    ("C11", "damaged results of the notebooks", "course/test_run.py::test_damaged_results_start_anew_with_a_note"),
    (
        "C11",
        "a page that is refused does not stop the others",
        "course/test_run.py::test_a_page_that_is_refused_fails_its_notebook_and_the_others_go_on",
    ),
    (
        "D1",
        "edits end in any order or all are taken off",
        "models/test_changes.py::test_every_pair_of_kinds_in_both_orders_of_exit",
    ),
    (
        "D1",
        "a generator left open",
        "models/test_changes.py::test_a_generator_left_open_by_itself_is_seen_and_can_be_taken_off",
    ),
    (
        "D2",
        "a signal while weights are put back",
        "models/test_changes.py::test_a_signal_at_any_moment_leaves_every_bit",
    ),
    (
        "D3",
        "values that are no change",
        "edits/test_values.py::test_files_with_wrong_values_are_refused_when_they_are_read",
    ),
    (
        "D3",
        "the command attack refuses them",
        "attacks/test_suite.py::test_the_verb_attack_refuses_what_is_no_edit_of_this_model",
    ),
    ("D3", "dictionaries with such values", "sae/test_settings.py::test_weights_that_are_not_finite_are_refused"),
    (
        "D4",
        "devices and links are not replaced",
        "edits/test_values.py::test_an_edit_is_not_saved_over_what_is_no_file",
    ),
    (
        "D5",
        "the key is shown in no encoding",
        "autointerp/test_endpoint.py::test_a_server_that_repeats_the_header_in_every_encoding",
    ),
    ("D5", "of the usage only numbers are kept", "autointerp/test_endpoint.py::test_odd_usage_counts_for_nothing"),
    (
        "D6",
        "ratings are numbers in their range",
        "autointerp/test_endpoint.py::test_ratings_are_numbers_in_range_and_of_the_right_count",
    ),
    ("D7", "answers that are no text", "autointerp/test_endpoint.py::test_what_is_no_text_is_no_answer"),
    (
        "D7",
        "the time limit holds",
        "autointerp/test_endpoint.py::test_the_time_limit_holds_however_slowly_the_server_speaks",
    ),
    ("D7", "odd requests to wait", "autointerp/test_endpoint.py::test_how_long_a_server_may_make_us_wait"),
    (
        "D8",
        "a source archive is not run",
        "core/test_packages.py::test_a_source_archive_of_another_checksum_is_not_run_and_not_kept",
    ),
    ("D8", "pip sees no secret", "core/test_packages.py::test_pip_gets_its_own_settings_and_no_secret"),
    ("D9", "deep nesting and large files", "data/test_concept_files.py::test_files_that_are_no_concept_at_all"),
    ("D10", "questions and texts that make no sense", "data/test_concept_files.py::test_what_is_wrong_is_one_sentence"),
    (
        "D11",
        "another number of options is refused with the file's name",
        "data/test_concept_files.py::test_what_is_wrong_is_one_sentence",
    ),
    ("E dollar", "dollars in figures", "course/test_plot_texts.py::test_a_dollar_is_shown_as_a_dollar"),
    (
        "E label -1",
        "numbers of label",
        "autointerp/test_labels.py::test_the_command_line_refuses_before_it_loads_anything",
    ),
    (
        "E empty labels",
        "an empty file of labels",
        "autointerp/test_labels.py::test_one_reader_refuses_what_is_no_label_file",
    ),
    (
        "E flipped bit",
        "a converted model that a disk damaged",
        "models/test_registry.py::test_a_flipped_bit_in_a_converted_model_is_noticed",
    ),
    (
        "E flipped bit",
        "a conversion that is older than fingerprints",
        "models/test_registry.py::test_a_conversion_from_before_there_were_fingerprints_is_made_again",
    ),
    (
        "E changed wheel",
        "a changed archive with its old time",
        "core/test_packages.py::test_a_changed_archive_is_noticed_even_with_its_old_time",
    ),
    ("E settings", "settings of training", "sae/test_before_training.py::test_settings"),
    (
        "E settings",
        "the command checks them before a model is loaded",
        "sae/test_before_training.py::test_the_command_refuses_before_a_model_is_loaded",
    ),
    (
        "E empty cache",
        "the cache folder set to nothing",
        "core/test_files.py::test_a_cache_variable_set_to_nothing_is_not_set",
    ),
    ("E modes", "files get the mode of the umask", "core/test_files.py::test_files_get_the_mode_of_the_umask"),
    (
        "E modes",
        "converted models too",
        "models/test_registry.py::test_a_conversion_that_is_killed_leaves_nothing_for_long",
    ),
    ("E no git", "the commit is unknown", "core/test_store.py::test_without_git_the_commit_is_unknown"),
    ("E full disk", "a disk that takes nothing", "core/test_files.py::test_a_disk_that_takes_nothing_is_one_sentence"),
    ("E interrupt", "an interrupt is one line", "cli/test_cli.py::test_ctrl_c_is_one_line_and_exit_status_130"),
    (
        "E reader",
        "a reader that goes away",
        "core/test_store.py::test_a_reader_that_goes_away_does_not_stop_the_experiment",
    ),
    (
        "E killed conversion",
        "what it left is swept",
        "core/test_files.py::test_what_a_killed_conversion_left_is_swept_at_once_and_a_running_one_is_not",
    ),
    ("E profile", "a profile that does not exist", "course/test_profiles.py::test_bad_profiles"),
    ("E pins", "constraints are exact", "test_environment.py::test_constraints_are_exact_and_satisfy_pyproject"),
    ("E pins", "all but torch have checksums", "test_environment.py::test_every_pin_but_torch_has_its_checksums"),
    ("E pins", "what torch pulls is pinned", "test_environment.py::test_what_torch_pulls_on_linux_is_pinned"),
    (
        "E damaged caches",
        "projections are computed anew",
        "models/test_projection.py::test_a_damaged_cache_is_computed_anew",
    ),
    (
        "E damaged caches",
        "a note of a table is named",
        "core/test_store.py::test_a_damaged_table_is_named_in_one_sentence",
    ),
    (
        "E nonsense",
        "no texts, no such device, half a layer, fewer than no tokens",
        "models/test_bad_input.py::test_bad_input_gets_one_sentence",
    ),
    (
        "E nonsense",
        "all of them at once, on the page",
        "test_bad_inputs.py::test_every_bad_input_gets_one_sentence_before_any_work",
    ),
]
NUMBERED = {"A": 27, "B": 10, "C": 11, "D": 11}


def functions_in(path: Path) -> set[str]:
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if path.exists() else ()
    return {node.name for node in nodes if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize(("fault", "what", "held_by"), HELD, ids=lambda x: x if "::" not in x else "")
def test_the_test_that_holds_a_fault_is_there(fault, what, held_by):
    name, _, function = held_by.partition("::")
    assert function in functions_in(HERE / name), f"{fault} ({what})"


def test_every_fault_is_held():
    numbered = {f"{kind}{i}" for kind, n in NUMBERED.items() for i in range(1, n + 1)}
    assert numbered == {fault for fault, *_ in HELD if not fault.startswith("E ")}
