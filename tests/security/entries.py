"""The list of attacks: what went wrong elsewhere, by its id, and which tests show that it does not go wrong here.

S-01 to S-26 are incidents of other servers, S-30 to S-37 faults of the Go hmac-file-server, S-40 to S-46 are about files,
sharing and room, S-50 to S-60 about what can be used up, S-70 to S-77 about running it. Tests of this folder carry the id
in their name; of the others those are named here that prove an entry already, so that nothing is proved twice.
THREAT_MODEL.md tells the same by subsystem.
"""

from __future__ import annotations

from typing import Final

_HERE: Final = "tests/security/"
_CANARIES: Final = _HERE + "test_security_canaries.py::"
_CONTENT: Final = _HERE + "test_security_content.py::"
_FIELDS: Final = _HERE + "test_security_fields.py::"
_IDENTIFIERS: Final = _HERE + "test_security_identifiers.py::"
_OPERATION: Final = _HERE + "test_security_operation.py::"
_PERMISSION: Final = _HERE + "test_security_permission.py::"
_RANGES: Final = _HERE + "test_security_ranges.py::"
_RESOURCES: Final = _HERE + "test_security_resources.py::"
_SOURCE: Final = _HERE + "test_security_source.py::"
_NOTHING: Final = _SOURCE + "test_s_12_s_13_s_16_s_23_s_24_s_60_nothing_fetches_unpacks_decodes_or_runs"

_CONFORMANCE: Final = "tests/http/test_conformance.py::test_in_every_cut"
_MATRIX: Final = "tests/server/test_permission_matrix.py::"
_PATHS: Final = "tests/http/test_paths.py::"
_CLOSING: Final = "tests/http/test_closing.py::"
_CONNECTION: Final = "tests/unit/http/test_http_connection.py::"
_DOWNLOADS: Final = "tests/server/test_downloads.py::"
_REPEATED: Final = "tests/faults/test_repeated_chunks.py::"
_STATIC: Final = "tests/unit/auth/test_auth_static.py::"
_STORAGE: Final = "tests/server/test_storage.py::"
_DEDUP: Final = "tests/unit/files/test_files_dedup.py::"
_SLOTS: Final = "tests/unit/auth/test_auth_slots.py::"
_SIGNATURE: Final = "tests/unit/auth/test_auth_signature.py::"
_VECTORS: Final = "tests/unit/auth/test_auth_vectors.py::"
_LOADER: Final = "tests/unit/config/test_loader.py::"

ENTRIES: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "S-01": (
        "an id out of a URL, decoded after it was looked at, becomes a path",
        (
            _IDENTIFIERS + "test_s_01_ids_in_a_path",
            _IDENTIFIERS + "test_s_01_ids_have_one_form",
            _PATHS + "test_put_stores_under_the_signed_path_or_nowhere",
        ),
    ),
    "S-02": (
        "a second, forgotten source of ids and names",
        (
            _IDENTIFIERS + "test_s_02_ids_in_a_field",
            _IDENTIFIERS + "test_s_02_ids_in_a_query",
            _IDENTIFIERS + "test_s_02_ids_in_a_list_of_parts",
            _IDENTIFIERS + "test_s_02_s_30_names_of_sessions",
            _IDENTIFIERS + "test_s_02_names_in_metadata",
            _IDENTIFIERS + "test_s_02_paths_in_a_ticket",
            _IDENTIFIERS + "test_s_02_other_fields_that_name_something",
            _FIELDS + "test_claims_of_prosody_s_tokens",
            _FIELDS + "test_paths_in_tickets",
            _FIELDS + "test_names_of_sessions_that_are_signed",
            _FIELDS + "test_names_in_metadata_of_any_key",
            _FIELDS + "test_names_of_the_drafts",
            _FIELDS + "test_parts_of_forms",
            _FIELDS + "test_values_of_a_query",
            _FIELDS + "test_fields_that_name_nothing_here",
            _FIELDS + "test_credentials_that_are_paths",
            _PATHS + "test_forms_store_under_a_path_of_the_server",
            _PATHS + "test_paths_in_the_query_decide_nothing",
        ),
    ),
    "S-03": (
        "a shortened URL lists a folder",
        (_DOWNLOADS + "test_no_prefix_of_a_url_lists_anything", _PATHS + "test_folders_are_never_shown"),
    ),
    "S-04": (
        "a signature is accepted where no key was set",
        (
            _LOADER + "test_secrets_that_are_refused",
            "tests/unit/auth/test_auth_keys.py::test_unusable_secrets_are_refused",
            "tests/unit/auth/test_auth_matrix.py::test_a_signature_with_the_empty_key_fails",
        ),
    ),
    "S-05": (
        "one handler or one source of credentials was forgotten",
        (
            _PERMISSION + "test_s_05_every_way_to_begin_an_upload_asks_the_gate",
            _PERMISSION + "test_s_05_the_same_requests_are_taken_with_permission",
            _PERMISSION + "test_s_05_a_permission_for_one_route_is_none_for_another",
            _MATRIX + "test_nothing_is_written_without_a_good_signature",
            "tests/unit/auth/test_auth_matrix.py::test_every_pair_of_sources_is_refused",
        ),
    ),
    "S-06": (
        "the body is not what was signed for",
        (
            "tests/unit/auth/test_auth_properties.py::test_any_one_change_fails",
            "tests/server/test_put_slots.py::test_another_size_is_refused_before_the_body",
            _REPEATED + "test_n_39_a_damaged_chunk",
        ),
    ),
    "S-07": (
        "secrets compared with ==",
        (
            _STATIC + "test_signatures_are_compared_in_constant_time_only",
            _STATIC + "test_every_mac_that_is_computed_is_compared_in_constant_time",
            "tests/security/test_security_timing.py::test_s_07_a_nearly_right_signature_is_refused_like_any_other",
        ),
    ),
    "S-08": (
        "memory without bound before permission",
        (
            _RESOURCES + "test_s_08_heads_that_never_end_hold_little",
            _RESOURCES + "test_s_08_bodies_without_permission_are_not_read",
            "tests/server/test_load.py::test_unauthorised_bodies_cost_nothing",
        ),
    ),
    "S-09": (
        "active content shown in the server's name",
        (
            _CONTENT + "test_s_09_nothing_active_is_shown_in_the_server_s_name",
            _CONTENT + "test_s_09_html_under_another_name",
            _DOWNLOADS + "test_only_harmless_types_are_shown_in_place",
        ),
    ),
    "S-10": (
        "a body without a length escapes the limit",
        (
            "tests/server/test_put_slots.py::test_chunked_bodies",
            "tests/server/test_put_slots.py::test_limits_of_size",
            _STORAGE + "test_a_disk_that_fills_up_under_a_chunked_body",
        ),
    ),
    "S-11": (
        "parallel uploads all pass one check",
        (
            "tests/server/test_tickets.py::test_parallel_uploads_cannot_overdraw_a_ticket",
            "tests/server/test_chunked_permissions.py::test_parallel_beginnings_cannot_overdraw",
            "tests/unit/files/test_files_space.py::test_fifty_threads_never_get_a_byte_too_many",
        ),
    ),
    "S-12": (
        "the server is made to fetch a URL",
        (
            _NOTHING,
            _SOURCE + "test_s_12_only_redis_is_connected_to",
        ),
    ),
    "S-13": (
        "a hook that hangs, or answers without end",
        (_NOTHING,),
    ),
    "S-14": (
        "many ranges cost quadratic time",
        (
            _DOWNLOADS + "test_a_large_range_list_costs_nothing",
            _RANGES + "test_a_range_is_what_the_letter_says",
            _RANGES + "test_many_ranges_cost_what_their_bytes_cost",
        ),
    ),
    "S-15": (
        "chunks of one byte, trailers and pipelines without end",
        (
            _CLOSING + "test_chunks_of_one_byte_are_linear",
            _CLOSING + "test_100000_pipelined_requests_hold_no_memory",
            "tests/unit/http/test_http_chunked.py::test_trailers_are_bounded",
        ),
    ),
    "S-16": (
        "a compressed body is unpacked",
        (
            _NOTHING,
            _SOURCE + "test_s_16_compression_is_of_our_own_pages_and_checksums_only",
            "tests/server/test_put_slots.py::test_content_coding_is_kept_as_bytes",
        ),
    ),
    "S-17": (
        "static files through symbolic links",
        (
            _PATHS + "test_links_planted_in_the_root_are_not_followed",
            "tests/unit/files/test_files_paths.py::test_planted_links_are_refused_everywhere",
        ),
    ),
    "S-18": (
        "request smuggling by lenient framing",
        (
            _CONFORMANCE,
            "tests/http/test_conformance.py::test_as_many_requests_reach_the_application_as_the_model_says",
            "tests/http/test_front.py::test_nginx_and_we_agree_on_every_case",
            "tests/http/test_front.py::test_nothing_is_smuggled_through_nginx",
            "tests/http/test_front.py::test_haproxy_and_we_agree_on_every_case",
            "tests/http/test_front.py::test_nothing_is_smuggled_through_haproxy",
            "tests/http/test_front.py::test_what_a_proxy_refuses_and_we_take_has_one_reading",
        ),
    ),
    "S-19": (
        "a pipelined request is served after an error; closed sockets keep the server busy",
        (
            _CONNECTION + "test_nothing_is_read_as_a_request_after_an_error",
            _CLOSING + "test_3000_connects_and_resets_cost_nothing_afterwards",
        ),
    ),
    "S-20": (
        "hostile forms",
        (
            "tests/server/test_multipart.py::test_hostile_forms",
            "tests/server/test_multipart.py::test_names_never_decide_where_bytes_go",
        ),
    ),
    "S-21": (
        "control characters of a URL in the log or in an answer",
        (
            "tests/server/test_command_line.py::test_a_file_name_cannot_forge_a_line",
            "tests/unit/telemetry/test_lines.py::test_escaped_text_is_one_printable_line",
            "tests/unit/http/test_http_request.py::test_fields_that_are_refused",
        ),
    ),
    "S-22": (
        "names of devices of Windows",
        (
            _CONTENT + "test_s_22_names_of_devices_are_not_offered_to_be_saved",
            _CONTENT + "test_s_22_streams_of_devices",
            _CONTENT + "test_s_22_other_names_are_as_they_were",
        ),
    ),
    "S-23": (
        "pictures of strangers are decoded",
        (_NOTHING,),
    ),
    "S-24": (
        "archives of strangers are unpacked",
        (_NOTHING,),
    ),
    "S-25": (
        "a verb that does not ask whose upload it is; errors that tell ids",
        (
            _IDENTIFIERS + "test_s_25_another_s_id_is_as_good_as_none",
            _CONTENT + "test_s_25_an_old_id_ends_nobody_else_s_file",
            "tests/server/test_chunked_permissions.py::test_strict_signatures",
            "tests/server/test_tus.py::test_strict_signatures",
        ),
    ),
    "S-26": (
        "numbers as int() reads them",
        (
            _IDENTIFIERS + "test_s_26_numbers_have_one_spelling",
            _SIGNATURE + "test_numbers_are_ascii_digits",
            _STATIC + "test_only_the_strict_reader_turns_text_into_numbers",
        ),
    ),
    "S-30": (
        "X-Filename joined to the storage folder",
        (_IDENTIFIERS + "test_s_02_s_30_names_of_sessions", _PATHS + "test_file_name_fields_of_a_put_decide_nothing"),
    ),
    "S-31": (
        "a file is filled under its public name",
        (
            "tests/server/test_put_interrupted.py::test_nothing_is_seen_before_the_last_byte",
            _REPEATED + "test_n_07_the_last_two_chunks_at_the_same_instant",
        ),
    ),
    "S-32": (
        "a captured signature of a path signs everything for ever; weaker layouts are tried in turn",
        (
            _SIGNATURE + "test_strict_mode_takes_the_strong_form_only",
            _SIGNATURE + "test_the_guides_form_never_deletes_and_reading_never_becomes_writing",
            _VECTORS + "test_weak_texts_of_the_go_server_are_refused",
            _VECTORS + "test_bearer_macs_of_the_go_server_are_refused",
        ),
    ),
    "S-33": (
        "what a client says of itself widens an expiry",
        (
            _SLOTS + "test_nothing_that_a_client_sends_widens_the_expiry",
            _SLOTS + "test_the_expiry_is_exact",
        ),
    ),
    "S-34": (
        "a name that exists is taken for the same content",
        (
            _CONTENT + "test_s_34_a_name_that_exists_tells_nothing_and_loses_nothing",
            "tests/server/test_multipart.py::test_two_people_may_upload_one_name",
        ),
    ),
    "S-35": (
        "ids that can be guessed, chunks out of range, bytes counted twice",
        (
            "tests/unit/uploads/test_engine_publishing.py::test_ids_cannot_be_guessed_and_are_served_by_their_process",
            "tests/server/test_chunked_api.py::test_malformed_chunks_change_nothing",
            _REPEATED + "test_n_04_duplicate_chunk_same_bytes",
            _REPEATED + "test_n_05_duplicate_chunk_other_bytes",
        ),
    ),
    "S-36": (
        "locks and pauses without end, a Redis that is believed",
        (
            "tests/unit/network/test_pause_gate.py::test_n36_a_pause_never_lasts_for_ever",
            "tests/server/test_upload_sessions.py::test_expiry_is_told_then_forgotten",
            "tests/crash/test_lost_redis.py::test_d_13_the_loss_of_redis_is_no_loss",
            "tests/unit/stores/test_redis_parts.py::test_a_change_that_the_store_could_not_even_take_holds_up_no_end",
        ),
    ),
    "S-37": (
        "errors and fields that tell of the machine; X-Forwarded-For of anybody",
        (
            _OPERATION + "test_s_37_answers_tell_nothing_of_the_machine",
            _CANARIES + "test_s_72_requests_and_faults",
            _REPEATED + "test_n_10_the_final_answer_is_lost_and_the_server_killed",
        ),
    ),
    "S-40": (
        "links planted in the storage folder or in ours",
        (
            _RESOURCES + "test_s_40_folders_of_ours_that_somebody_swaps",
            _RESOURCES + "test_s_40_something_else_in_the_place_of_a_draft",
            _PATHS + "test_links_planted_in_the_root_are_not_followed",
            "tests/unit/files/test_files_store.py::test_a_fifo_in_the_tree_neither_blocks_nor_is_served",
        ),
    ),
    "S-41": (
        "case, trailing dots, long and deep paths, reserved names",
        (
            _PATHS + "test_put_stores_under_the_signed_path_or_nowhere",
            "tests/unit/files/test_files_paths.py::test_no_spelling_leads_out_of_the_root_or_into_the_private_folder",
        ),
    ),
    "S-42": (
        "the collector against a new link to the same content",
        (_DEDUP + "test_a_thousand_rounds_of_upload_against_expiry_of_the_same_bytes",),
    ),
    "S-43": (
        "deduplication tells what others have stored",
        (
            _CONTENT + "test_s_43_who_knows_a_digest_has_nothing",
            _STORAGE + "test_twins_cannot_be_told_apart",
            _DEDUP + "test_a_hit_makes_the_calls_of_a_miss_but_for_the_blob",
            "tests/security/test_security_timing.py::test_s_43_first_and_second_upload_do_the_same",
            "tests/security/test_security_timing.py::test_s_43_many_pairs_have_one_answer",
        ),
    ),
    "S-44": (
        "a digest is believed of the client",
        (
            _CONTENT + "test_s_44_what_a_client_calls_its_bytes_decides_nothing",
            _DEDUP + "test_one_of_another_size_is_not_used_and_replaced",
        ),
    ),
    "S-45": (
        "what one owner does to a shared content shows at another's",
        (
            _CONTENT + "test_s_45_one_owner_s_deletion_is_invisible_to_another",
            _DEDUP + "test_each_twin_has_its_own_metadata",
        ),
    ),
    "S-46": (
        "room and counts that leak or are overdrawn",
        (
            "tests/server/test_chunked_permissions.py::test_a_ticket_s_uses_are_counted_and_given_back",
            "tests/faults/test_takeovers.py::test_n_34_delete_gives_space_and_quota_back",
            "tests/server/test_chunked_api.py::test_space_that_expired_uploads_were_promised_is_free_again",
            "tests/server/test_several_processes.py::test_the_space_of_a_killed_process_is_given_back",
            "tests/load/test_clients_at_once.py::test_g_24_races_for_files_sessions_and_space",
        ),
    ),
    "S-50": (
        "numbers that promise too much",
        (
            _RESOURCES + "test_s_50_a_size_that_is_only_said_costs_nothing",
            _RESOURCES + "test_s_50_many_holes_are_bounded",
            "tests/unit/protocols/test_chunked_requests.py::test_no_more_than_a_hundred_thousand_chunks",
        ),
    ),
    "S-51": (
        "sessions without number",
        (
            "tests/server/test_chunked_permissions.py::test_sessions_of_one_owner",
            "tests/stores/test_store_contract.py::test_the_limit_is_exact_when_many_come_at_once",
            _PERMISSION + "test_s_05_every_way_to_begin_an_upload_asks_the_gate",
            "tests/load/test_clients_at_once.py::test_s_51_sessions_without_number",
        ),
    ),
    "S-52": (
        "heads with too many or too long fields",
        (_CONFORMANCE, "tests/unit/http/test_http_request.py::test_the_target_limit_is_exact"),
    ),
    "S-53": (
        "buffers that grow with what a peer does not take",
        (
            _CONNECTION + "test_what_waits_for_a_slow_reader_is_bounded",
            _CLOSING + "test_a_client_that_pipelines_and_never_reads_holds_little",
            "tests/server/test_load.py::test_memory_stays_flat_while_gigabytes_go_through",
            "tests/load/test_clients_at_once.py::test_n_19_pipelines_that_are_not_read",
        ),
    ),
    "S-54": (
        "connections without number",
        (
            _CONNECTION + "test_too_many_connections",
            _CLOSING + "test_2000_silent_connections_and_a_quick_client",
        ),
    ),
    "S-55": ("no inode is left", (_STORAGE + "test_no_inodes",)),
    "S-56": (
        "no byte is left",
        (
            _STORAGE + "test_a_full_disk",
            "tests/crash/test_full_disk.py::test_a_full_disk",
            "tests/crash/test_full_disk_uploads.py::test_d_16_the_server_restarts_on_a_full_disk",
        ),
    ),
    "S-57": (
        "JSON that is deep or long",
        (
            _PERMISSION + "test_s_57_signed_tokens_of_any_content",
            _PERMISSION + "test_s_57_claims_that_nobody_knows_are_passed_over",
            "tests/unit/auth/test_auth_tokens.py::test_no_signed_payload_raises",
        ),
    ),
    "S-58": (
        "regular expressions that explode",
        (
            _SOURCE + "test_s_58_no_pattern_can_be_made_to_explode",
            _SOURCE + "test_every_pattern_is_compiled_where_it_can_be_found",
            "tests/unit/protocols/test_download_rules.py::test_a_hostile_type_costs_no_time",
        ),
    ),
    "S-59": (
        "a slow disk holds up everybody",
        (
            _RESOURCES + "test_s_59_a_disk_that_stands_still_stops_nobody_who_needs_none",
            "tests/server/test_busy_workers.py::test_a_full_queue_holds_sockets_then_puts_new_uploads_off_and_loses_nothing",
        ),
    ),
    "S-60": (
        "decompression",
        (
            _NOTHING,
            "tests/server/test_put_slots.py::test_content_coding_is_kept_as_bytes",
        ),
    ),
    "S-70": (
        "log lines that can be forged, or hold too much",
        (
            "tests/unit/telemetry/test_log.py::test_text_escapes_and_cuts_what_users_write",
            "tests/unit/telemetry/test_access.py::test_odd_text_never_makes_a_second_line",
            "tests/unit/protocols/test_logged_path.py::test_of_an_uploads_id_the_beginning",
        ),
    ),
    "S-71": (
        "monitoring and management in public",
        (
            _OPERATION + "test_s_71_nothing_to_manage_or_to_watch_is_public",
            _OPERATION + "test_s_71_health_says_no_more_than_it_must",
            _OPERATION + "test_s_71_only_the_configured_addresses_listen",
        ),
    ),
    "S-72": (
        "secrets in logs, answers, process lists and printed configurations",
        (
            _CANARIES + "test_s_72_requests_and_faults",
            _CANARIES + "test_s_72_commands_with_a_configuration",
            _CANARIES + "test_s_72_secrets_on_a_command_line_are_refused",
            _CANARIES + "test_s_72_secrets_in_the_environment",
            "tests/server/test_lifecycle.py::test_no_secret_and_no_signature_anywhere",
        ),
    ),
    "S-73": (
        "old TLS, and plain HTTP that is redirected",
        (
            "tests/server/test_tls.py::test_only_current_versions",
            "tests/http/test_tls.py::test_plain_http_and_old_versions_are_turned_away",
            _OPERATION + "test_s_73_plain_http_is_never_redirected",
        ),
    ),
    "S-74": (
        "a service with more rights than it needs",
        (
            "tests/unit/cli/test_init.py::test_the_unit_is_hardened",
            "tests/security/test_security_service.py::test_g_28_the_exposure_of_the_service",
            "tests/security/test_security_service.py::test_the_unit_leaves_the_server_its_calls",
        ),
    ),
    "S-75": (
        "packages that were changed on their way",
        (
            _OPERATION + "test_s_75_packages_are_pinned_by_version_and_hash",
            _OPERATION + "test_s_75_few_packages_run_with_the_server",
            "tests/clients/test_lock_file.py::test_every_package_is_pinned_by_its_hash",
        ),
    ),
    "S-76": (
        "fields of a proxy are believed of anybody",
        (
            _OPERATION + "test_s_76_what_a_proxy_would_say_is_not_believed_of_anybody",
            _OPERATION + "test_s_76_the_address_on_a_page_is_told_to_its_asker_only",
            _OPERATION + "test_s_76_a_trusted_proxy_names_the_client",
            "tests/unit/network/test_proxies.py::test_without_trusted_proxies_the_peer_is_the_client",
        ),
    ),
    "S-77": (
        "TRACE, CONNECT and other methods",
        (
            _OPERATION + "test_s_77_other_methods_are_refused_and_nothing_comes_back",
            _MATRIX + "test_other_methods_do_nothing",
        ),
    ),
}
"""By id: what went wrong, and the tests (`path::name`)."""
