"""Which instruction a task of MTEB asks for."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from raylib.types import Role

if TYPE_CHECKING:
    from mteb.abstasks.task_metadata import TaskMetadata


def task_instruction(task: TaskMetadata, role: Role | None) -> str:
    """What MTEB's instruction models are told: the task's own prompt, else that of its type; "" where its own prompts
    leave this role out."""
    from mteb.models.abs_encoder import AbsEncoder
    from mteb.types import PromptType

    defaults: Any = SimpleNamespace(prompts_dict=None, prompt_priority=AbsEncoder.prompt_priority)
    text: Any = AbsEncoder.get_instruction(defaults, task, PromptType(role) if role else None)
    return next(iter(text.values()), "") if isinstance(text, dict) else text


def own_prompt(task: TaskMetadata, role: Role) -> str | None:
    """The prompt in the task's metadata for this role; one prompt without roles is the queries'."""
    prompt: Any = task.prompt
    if isinstance(prompt, dict):
        return prompt.get(role)
    return prompt if role == "query" else None
