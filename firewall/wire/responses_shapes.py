"""What is inert in an answer of OpenAI's Responses API: its events, items and parts, and the shapes of their fields."""

from __future__ import annotations

from firewall.wire.leaves import BASE64, DATA, LINK, MEDIA, PAD, TOKEN, Inert, trie, words

STATUS = words("in_progress completed incomplete failed cancelled queued searching calling interpreting generating")
ITEM_TYPES = words("""message reasoning function_call function_call_output custom_tool_call custom_tool_call_output
    mcp_call mcp_list_tools mcp_approval_request mcp_approval_response web_search_call file_search_call
    code_interpreter_call code_interpreter_call_output image_generation_call computer_call computer_call_output
    local_shell_call local_shell_call_output shell_call shell_call_output apply_patch_call apply_patch_call_output
    tool_search_call tool_search_output compaction program program_output output_text refusal summary_text
    reasoning_text url_citation file_citation container_file_citation file_path search open_page find_in_page find logs
    image exit timeout container_reference auto delete_file create_file update_file function custom direct x_search_call
    text""")
CHECKS = words("malicious_instructions irrelevant_domain sensitive_domain")
_PART: Inert = {
    "type": ITEM_TYPES,
    "annotations[].type": ITEM_TYPES,
    "annotations[].file_id": TOKEN,
    "annotations[].container_id": TOKEN,
    "annotations[].url": LINK,
}
ITEM: Inert = {
    "id": TOKEN, "type": ITEM_TYPES, "status": STATUS, "role": words("assistant"), "call_id": TOKEN,
    "phase": words("commentary final_answer"),
    "container_id": TOKEN, "encrypted_content": BASE64, "result": MEDIA, "execution": words("client server"),
    "output_format": words("png webp jpeg"), "quality": words("auto low medium high"), "size": TOKEN,
    "background": words("auto opaque transparent"), "approval_request_id": TOKEN,
    "caller.type": ITEM_TYPES, "caller.caller_id": TOKEN,
    "action.type": ITEM_TYPES | words("click scroll keypress type wait screenshot move drag double_click exec"),
    "operation.type": ITEM_TYPES, "environment.type": ITEM_TYPES | words("local container_auto"),
    "environment.container_id": TOKEN,
    "pending_safety_checks[].code": CHECKS, "action.url": LINK, "action.sources[].url": LINK,
    "outputs[].type": ITEM_TYPES, "outputs[].url": DATA, "output.type": words("computer_screenshot"),
    "output.image_url": DATA, "output[].outcome.type": ITEM_TYPES, "summary[].type": ITEM_TYPES,
    **{f"content[].{path}": shape for path, shape in _PART.items()},
}
RESPONSE: Inert = {
    "id": TOKEN, "object": words("response"), "status": STATUS, "model": TOKEN, "service_tier": TOKEN,
    "truncation": words("auto disabled"), "tool_choice": words("auto none required"),
    "text.format.type": words("text json_object json_schema"), "text.verbosity": words("low medium high"),
    "reasoning.effort": TOKEN, "reasoning.summary": words("auto concise detailed"), "reasoning.mode": TOKEN,
    "reasoning.context": TOKEN, "prompt_cache_retention": words("24h in_memory in-memory"),
    "incomplete_details.reason": words("max_output_tokens content_filter"),
    "error.code": TOKEN,
    **{f"output[].{path}": shape for path, shape in ITEM.items()},
    **{f"content_filters[].{path}": shape for path, shape in {
        "source_type": words("prompt completion"),
        **{f"content_filter_results.{name}.severity": words("safe low medium high")
           for name in ("hate", "self_harm", "sexual", "violence")}}.items()},
}
EVENTS = words("""response.created response.queued response.in_progress response.completed response.incomplete
    response.failed response.output_item.added response.output_item.done response.content_part.added
    response.content_part.done response.output_text.delta response.output_text.done
    response.output_text.annotation.added response.refusal.delta response.refusal.done
    response.function_call_arguments.delta response.function_call_arguments.done response.custom_tool_call_input.delta
    response.custom_tool_call_input.done response.mcp_call_arguments.delta response.mcp_call_arguments.done
    response.mcp_call.in_progress response.mcp_call.completed response.mcp_call.failed
    response.mcp_list_tools.in_progress response.mcp_list_tools.completed response.mcp_list_tools.failed
    response.code_interpreter_call_code.delta response.code_interpreter_call_code.done
    response.code_interpreter_call.in_progress response.code_interpreter_call.interpreting
    response.code_interpreter_call.completed response.reasoning_text.delta response.reasoning_text.done
    response.reasoning_summary_text.delta response.reasoning_summary_text.done response.reasoning_summary_part.added
    response.reasoning_summary_part.done response.web_search_call.in_progress response.web_search_call.searching
    response.web_search_call.completed response.file_search_call.in_progress response.file_search_call.searching
    response.file_search_call.completed response.image_generation_call.in_progress
    response.image_generation_call.generating response.image_generation_call.partial_image
    response.image_generation_call.completed response.shell_call_command.added response.shell_call_command.delta
    response.shell_call_command.done response.shell_call_output_content.delta response.shell_call_output_content.done
    response.audio.delta response.audio.done response.audio.transcript.delta response.audio.transcript.done
    error keepalive""")
ANSWER: Inert = {
    "type": EVENTS, "item_id": TOKEN, "obfuscation": PAD, "delta.type": ITEM_TYPES, "call_id": TOKEN,
    "partial_image_b64": MEDIA, "output_format": words("png webp jpeg"), "quality": words("auto low medium high"),
    "size": TOKEN, "background": words("auto opaque transparent"),
    **{f"part.{path}": shape for path, shape in _PART.items()},
    **{f"annotation.{path[14:]}": shape for path, shape in _PART.items() if path.startswith("annotations[].")},
    **{f"item.{path}": shape for path, shape in ITEM.items()},
    **{f"response.{path}": shape for path, shape in RESPONSE.items()},
}
PLACE = trie({**ANSWER, **{path: shape for path, shape in RESPONSE.items() if path not in ANSWER}})
WHOLE = trie(RESPONSE)
SHELL = PLACE["item"]["output"]["[]"]
