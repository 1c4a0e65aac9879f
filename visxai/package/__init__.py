"""A model packed with its explanation: one ONNX file that gives scores and maps.

    from visxai import package
    package.write(visxai.Engine("efficientnet_lite0"), "explainable.onnx")

The file needs ONNX Runtime alone, in any language. `repository` writes it as a model repository for
Triton and KServe, and `web` as a folder whose page explains a visitor's own picture.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from visxai._lazy import hand_on

if TYPE_CHECKING:
    from visxai.package.graph import write
    from visxai.package.serving import repository
    from visxai.package.site import web

__all__ = ["repository", "web", "write"]

__getattr__, __dir__ = hand_on(__name__, {"repository": "serving", "web": "site", "write": "graph"})
