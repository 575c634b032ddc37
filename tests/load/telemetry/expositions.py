"""Texts as the four engines write them, with the figures to be told left open."""

from __future__ import annotations

from dataclasses import dataclass

VLLM = """\
# HELP python_gc_objects_collected_total Objects collected during gc
# TYPE python_gc_objects_collected_total counter
python_gc_objects_collected_total{{generation="0"}} 13261.0
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{{engine="0",model_name="meta-llama/Llama-3.1-8B-Instruct"}} {running}
# HELP vllm:num_requests_waiting Number of requests waiting to be processed.
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{{engine="0",model_name="meta-llama/Llama-3.1-8B-Instruct"}} {waiting}
# HELP vllm:kv_cache_usage_perc KV-cache usage. 1 means 100 percent usage.
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{{engine="0",model_name="meta-llama/Llama-3.1-8B-Instruct"}} {usage}
# HELP vllm:num_preemptions_total Cumulative number of preemption from the engine.
# TYPE vllm:num_preemptions_total counter
vllm:num_preemptions_total{{engine="0",model_name="meta-llama/Llama-3.1-8B-Instruct"}} {preemptions}
# HELP vllm:num_preemptions_created Cumulative number of preemption from the engine.
# TYPE vllm:num_preemptions_created gauge
vllm:num_preemptions_created{{engine="0",model_name="meta-llama/Llama-3.1-8B-Instruct"}} 1.7e+09
# HELP vllm:prompt_tokens_total Number of prefill tokens processed.
# TYPE vllm:prompt_tokens_total counter
vllm:prompt_tokens_total{{engine="0",model_name="meta-llama/Llama-3.1-8B-Instruct"}} {prompt}
# HELP vllm:generation_tokens_total Number of generation tokens processed.
# TYPE vllm:generation_tokens_total counter
vllm:generation_tokens_total{{engine="0",model_name="meta-llama/Llama-3.1-8B-Instruct"}} {generated}
# HELP vllm:request_success_total Count of successfully processed requests.
# TYPE vllm:request_success_total counter
vllm:request_success_total{{engine="0",finished_reason="stop",model_name="m"}} 3.0
# HELP vllm:iteration_tokens_total Histogram of number of tokens per engine_step.
# TYPE vllm:iteration_tokens_total histogram
vllm:iteration_tokens_total_bucket{{engine="0",le="1.0",model_name="m"}} 21.0
vllm:iteration_tokens_total_bucket{{engine="0",le="+Inf",model_name="m"}} 50.0
vllm:iteration_tokens_total_count{{engine="0",model_name="m"}} 50.0
vllm:iteration_tokens_total_sum{{engine="0",model_name="m"}} 4096.0
# HELP vllm:time_to_first_token_seconds Histogram of time to first token in seconds.
# TYPE vllm:time_to_first_token_seconds histogram
vllm:time_to_first_token_seconds_bucket{{engine="0",le="0.001",model_name="m"}} 0.0
vllm:time_to_first_token_seconds_bucket{{engine="0",le="+Inf",model_name="m"}} 8.0
vllm:time_to_first_token_seconds_count{{engine="0",model_name="m"}} 8.0
vllm:time_to_first_token_seconds_sum{{engine="0",model_name="m"}} 0.4
"""

SGLANG = """\
# HELP sglang:prompt_tokens_total Number of prefill tokens processed.
# TYPE sglang:prompt_tokens_total counter
sglang:prompt_tokens_total{{model_name="meta-llama/Llama-3.1-8B-Instruct"}} {prompt}
# HELP sglang:generation_tokens_total Number of generation tokens processed.
# TYPE sglang:generation_tokens_total counter
sglang:generation_tokens_total{{model_name="meta-llama/Llama-3.1-8B-Instruct"}} {generated}
# HELP sglang:num_retracted_requests_total Total number of retracted requests.
# TYPE sglang:num_retracted_requests_total counter
sglang:num_retracted_requests_total{{model_name="m",pp_rank="0",tp_rank="0"}} {preemptions}
# HELP sglang:token_usage The token usage
# TYPE sglang:token_usage gauge
sglang:token_usage{{model_name="m",pp_rank="0",tp_rank="0"}} {usage}
sglang:token_usage{{model_name="m",pp_rank="0",tp_rank="1"}} {usage}
# HELP sglang:cache_hit_rate The cache hit rate
# TYPE sglang:cache_hit_rate gauge
sglang:cache_hit_rate{{model_name="m",pp_rank="0",tp_rank="0"}} 0.0075
# HELP sglang:num_running_reqs The number of running requests
# TYPE sglang:num_running_reqs gauge
sglang:num_running_reqs{{model_name="m",pp_rank="0",tp_rank="0"}} {running}
sglang:num_running_reqs{{model_name="m",pp_rank="0",tp_rank="1"}} {running}
# HELP sglang:gen_throughput The generate throughput (token/s)
# TYPE sglang:gen_throughput gauge
sglang:gen_throughput{{model_name="m",pp_rank="0",tp_rank="0"}} 86.5
# HELP sglang:num_queue_reqs The number of requests in the waiting queue
# TYPE sglang:num_queue_reqs gauge
sglang:num_queue_reqs{{model_name="m",pp_rank="0",tp_rank="0"}} {waiting}
"""

LLAMA_CPP = """\
# HELP llamacpp:prompt_tokens_total Number of prompt tokens processed.
# TYPE llamacpp:prompt_tokens_total counter
llamacpp:prompt_tokens_total {prompt}
# HELP llamacpp:tokens_predicted_total Number of generation tokens processed.
# TYPE llamacpp:tokens_predicted_total counter
llamacpp:tokens_predicted_total {generated}
# HELP llamacpp:prompt_tokens_seconds Average prompt throughput in tokens/s.
# TYPE llamacpp:prompt_tokens_seconds gauge
llamacpp:prompt_tokens_seconds nan
# HELP llamacpp:kv_cache_usage_ratio KV-cache usage. 1 means 100 percent usage.
# TYPE llamacpp:kv_cache_usage_ratio gauge
llamacpp:kv_cache_usage_ratio {usage}
# HELP llamacpp:requests_processing Number of requests processing.
# TYPE llamacpp:requests_processing gauge
llamacpp:requests_processing {running}
# HELP llamacpp:requests_deferred Number of requests deferred.
# TYPE llamacpp:requests_deferred gauge
llamacpp:requests_deferred {waiting}
"""


@dataclass(frozen=True)
class State:
    """What an engine is to tell."""

    running: int = 0
    waiting: int = 0
    usage: float = 0.0
    prompt: int = 0
    generated: int = 0
    preemptions: int = 0

    def write(self, form: str) -> str:
        return form.format(**self.__dict__)


def upcurve_text(state: State) -> str:
    """The text of this project's own engine, by its own registry."""
    from upcurve.engine.serve.messages import Capacity, Status
    from upcurve.engine.serve.metrics import Metrics

    capacity = Capacity("", 1000, 1000, 16, 1000, 64)
    pages = round(state.usage * 1000)
    status = Status(running=state.running, pages=pages, preemptions=state.preemptions)
    metrics = Metrics()
    metrics.watch(capacity, lambda: status, lambda: state.running + state.waiting)
    metrics.prompt_tokens.inc(state.prompt)
    metrics.generated_tokens.inc(state.generated)
    return metrics.render().decode()
