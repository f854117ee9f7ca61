"""Rich requests, one a dialect: every field a client can put words into."""

from __future__ import annotations

from typing import Any

SCHEMA = {
    "type": "object",
    "properties": {
        "place": {
            "type": "string",
            "description": "a town",
            "enum": ["Rome", "Oslo"],
            "default": "Rome",
            "examples": ["Bern"],
        }
    },
    "required": ["place"],
    "additionalProperties": False,
    "$defs": {"inner": {"title": "Inner", "const": "x", "pattern": "^a$"}},
}
IMAGE = "data:image/png;base64,iVBORw0KGgo="

RICH: dict[str, dict[str, Any]] = {
    "openai-chat": {
        "model": "gpt-4o",
        "stream": True,
        "temperature": 0.5,
        "n": 2,
        "user": "someone",
        "stop": ["STOP", "END"],
        "metadata": {"team": "red", "ticket": "a b"},
        "safety_identifier": "hash",
        "prompt_cache_key": "key-1",
        "service_tier": "auto",
        "reasoning_effort": "low",
        "verbosity": "low",
        "logit_bias": {"50256": -100},
        "prediction": {"type": "content", "content": [{"type": "text", "text": "predicted words"}]},
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "form", "description": "the form", "strict": True, "schema": SCHEMA},
        },
        "tool_choice": {"type": "function", "function": {"name": "weather"}},
        "web_search_options": {"user_location": {"type": "approximate", "approximate": {"city": "Rome"}}},
        "tools": [
            {"type": "function", "function": {"name": "weather", "description": "The weather", "parameters": SCHEMA}},
            {
                "type": "custom",
                "custom": {
                    "name": "sql",
                    "description": "SQL",
                    "format": {"type": "grammar", "grammar": {"syntax": "lark", "definition": "start: WORD"}},
                },
            },
        ],
        "functions": [{"name": "old", "description": "an old one", "parameters": SCHEMA}],
        "messages": [
            {"role": "system", "content": "be kind"},
            {"role": "developer", "content": "be brief", "name": "dev"},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "look"},
                    {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
                    {"type": "image_url", "image_url": {"url": IMAGE, "detail": "low"}},
                    {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}},
                    {"type": "file", "file": {"file_id": "file-1", "filename": "notes.pdf"}},
                ],
            },
            {
                "role": "assistant",
                "content": None,
                "refusal": "no",
                "reasoning_content": "hm",
                "tool_calls": [
                    {
                        "id": "call_1",
                        "type": "function",
                        "function": {"name": "weather", "arguments": '{"place":"Rome"}'},
                    }
                ],
            },
            {"role": "tool", "tool_call_id": "call_1", "content": [{"type": "text", "text": "sunny"}]},
            {"role": "assistant", "function_call": {"name": "old", "arguments": "{}"}},
            {"role": "function", "name": "old", "content": "done"},
            {"role": "user", "content": "and now?"},
        ],
    },
    "openai-completions": {
        "model": "m",
        "prompt": ["one", "two"],
        "suffix": "tail",
        "stop": "END",
        "user": "someone",
        "echo": True,
        "best_of": 2,
    },
    "openai-responses": {
        "model": "gpt-5",
        "instructions": "be kind",
        "user": "someone",
        "metadata": {"team": "red"},
        "include": ["reasoning.encrypted_content"],
        "text": {"format": {"type": "json_schema", "name": "form", "schema": SCHEMA}},
        "tools": [
            {"type": "function", "name": "weather", "description": "The weather", "parameters": SCHEMA},
            {
                "type": "mcp",
                "server_label": "zip",
                "server_url": "https://example.com/mcp",
                "authorization": "tok",
                "server_description": "short links",
                "require_approval": "never",
            },
            {"type": "file_search", "vector_store_ids": ["vs_1"]},
        ],
        "input": [
            {"role": "user", "content": "hello"},
            {
                "type": "message",
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "look"},
                    {"type": "input_image", "image_url": IMAGE},
                    {"type": "input_file", "file_id": "file-1", "filename": "a.pdf"},
                ],
            },
            {
                "type": "reasoning",
                "id": "rs_1",
                "summary": [{"type": "summary_text", "text": "thought"}],
                "encrypted_content": "gAAAA=",
            },
            {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": '{"place":"Rome"}'},
            {"type": "function_call_output", "call_id": "c1", "output": "sunny"},
            {"type": "custom_tool_call", "call_id": "c2", "name": "sql", "input": "SELECT 1"},
        ],
    },
    "anthropic-messages": {
        "model": "claude",
        "max_tokens": 99,
        "stop_sequences": ["STOP"],
        "metadata": {"user_id": "someone"},
        "system": [{"type": "text", "text": "be kind", "cache_control": {"type": "ephemeral", "ttl": "5m"}}],
        "tool_choice": {"type": "tool", "name": "weather"},
        "thinking": {"type": "enabled", "budget_tokens": 1024},
        "tools": [
            {"name": "weather", "description": "The weather", "input_schema": SCHEMA},
            {"type": "web_search_20250305", "name": "web_search", "allowed_domains": ["example.com"]},
        ],
        "mcp_servers": [{"type": "url", "url": "https://example.com/mcp", "name": "zip", "authorization_token": "tok"}],
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "look"},
                    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}},
                    {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}},
                    {
                        "type": "document",
                        "title": "Notes",
                        "context": "from home",
                        "citations": {"enabled": True},
                        "source": {"type": "text", "media_type": "text/plain", "data": "the notes"},
                    },
                ],
            },
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "hm", "signature": "c2ln"},
                    {"type": "text", "text": "I will look"},
                    {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"place": "Rome", "days": 3}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "toolu_1", "content": [{"type": "text", "text": "sunny"}]},
                    {
                        "type": "search_result",
                        "source": "https://example.com",
                        "title": "Sun",
                        "content": [{"type": "text", "text": "it shines"}],
                    },
                ],
            },
            {"role": "user", "content": "and now?"},
        ],
    },
    "gemini": {
        "systemInstruction": {"parts": [{"text": "be kind"}]},
        "labels": {"team": "red"},
        "safetySettings": [{"category": "HARM_CATEGORY_HATE_SPEECH", "threshold": "BLOCK_NONE"}],
        "generationConfig": {
            "stopSequences": ["STOP"],
            "responseMimeType": "application/json",
            "candidateCount": 2,
            "responseSchema": {"type": "OBJECT", "properties": {"place": {"type": "STRING", "description": "a town"}}},
        },
        "tools": [{"functionDeclarations": [{"name": "weather", "description": "The weather", "parameters": SCHEMA}]}],
        "toolConfig": {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["weather"]}},
        "contents": [
            {
                "role": "user",
                "parts": [
                    {"text": "look"},
                    {"inlineData": {"mimeType": "image/png", "data": "iVBORw0KGgo="}},
                    {"inlineData": {"mimeType": "text/plain", "data": "dGhlIG5vdGVz"}},
                    {"fileData": {"mimeType": "image/png", "fileUri": "gs://a/b c.png"}},
                ],
            },
            {
                "role": "model",
                "parts": [
                    {"functionCall": {"name": "weather", "args": {"place": "Rome", "days": 3}}},
                    {"executableCode": {"language": "PYTHON", "code": "print(1)"}},
                ],
            },
            {"role": "user", "parts": [{"functionResponse": {"name": "weather", "response": {"sky": "sunny"}}}]},
        ],
    },
    "ollama-chat": {
        "model": "llama3",
        "keep_alive": "5m",
        "format": SCHEMA,
        "options": {"stop": ["STOP"], "num_ctx": 4096},
        "tools": [
            {"type": "function", "function": {"name": "weather", "description": "The weather", "parameters": SCHEMA}}
        ],
        "messages": [
            {"role": "system", "content": "be kind"},
            {"role": "user", "content": "look", "images": ["iVBORw0="]},
            {
                "role": "assistant",
                "content": "",
                "thinking": "hm",
                "tool_calls": [{"function": {"name": "weather", "arguments": {"place": "Rome", "days": 3}}}],
            },
            {"role": "tool", "tool_name": "weather", "content": "sunny"},
        ],
    },
    "ollama-generate": {
        "model": "llama3",
        "prompt": "look",
        "suffix": "tail",
        "system": "be kind",
        "images": ["iVBORw0="],
        "template": "{{ .Prompt }} please",
        "format": "json",
        "raw": False,
    },
}
