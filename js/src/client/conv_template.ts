// WebLLM's format of a conversation. What it means is in src/webllm/text/conv_template.py.

type Role = "user" | "assistant" | "tool";

export interface ConvTemplateConfig {
  system_template?: string;
  system_message?: string;
  roles: Partial<Record<Role, string>>;
  role_templates?: Partial<Record<Role, string>>;
  seps: string[];
  role_content_sep?: string;
  role_empty_sep?: string;
  stop_str?: string[];
  system_prefix_token_ids?: number[] | null;
  stop_token_ids?: number[];
  strip_reasoning_in_history?: boolean;
  add_role_after_system_message?: boolean;
  render_empty_system_message?: boolean;
  name?: string | null;
  messages?: [string, string | null][];
  function_string?: string;
  use_function_calling?: boolean;
}
