"""A Gradio page in front of a running `visxai demo`; see README.md."""

from __future__ import annotations

import os
from typing import Any

import gradio as gr
from client import Demo

demo = Demo(os.environ.get("VISXAI_DEMO", "http://127.0.0.1:8010"))
choices = demo.choices()
methods = [one["spec"] for one in choices["methods"]]


def explain(image: Any, chosen: list[str], target: str) -> tuple[Any, Any]:
    """Explain what the page sends; a refusal becomes a message on the page."""
    if image is None:
        raise gr.Error("Choose a photograph first.")
    try:
        return demo.explain(image, choices["model"], chosen, target)
    except RuntimeError as error:
        raise gr.Error(str(error)) from error


page = gr.Interface(
    explain,
    [
        gr.Image(type="pil", label="Photograph"),
        gr.CheckboxGroup(methods, value=methods[:1], label="Methods"),
        gr.Radio(["top1", "top5"], value="top1", label="Classes"),
    ],
    [gr.Gallery(label="Maps"), gr.Label(label="Strongest classes")],
    title="Which pixels made the model say that?",
    flagging_mode="never",
)

if __name__ == "__main__":
    page.launch()
