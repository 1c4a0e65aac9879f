"""Other names of methods: those of captum, of grad-cam, of shap and of papers.

Case, underscores, hyphens and blanks don't count, and a plus sign is read as "plus", so GradCAM,
Score-CAM and gradcam++ need no entry of their own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

# Folded spellings, and the method that each of them stands for.
OTHERS = {
    "gradcampp": "grad_cam_plus_plus",
    "layergradcam": "grad_cam",
    "ig": "integrated_gradients",
    "eg": "expected_gradients",
    "gradient": "saliency",
    "gradients": "saliency",
    "vanillagradient": "saliency",
    "vanillagradients": "saliency",
    "gradientxinput": "input_x_gradient",
    "gradientinput": "input_x_gradient",
    "inputtimesgradient": "input_x_gradient",
    "noisetunnel": "smooth_grad",
    "sg": "smooth_grad",
    "shap": "partition_shap",
    "partitionexplainer": "partition_shap",
    "kernelexplainer": "kernel_shap",
    "limeimageexplainer": "lime",
    "occlusionsensitivity": "occlusion",
    "slidingwindow": "occlusion",
    "sbsm": "occlusion",
    "drise": "rise",
    "rollout": "attention_rollout",
    "transformerattribution": "chefer",
    "transformerexplainability": "chefer",
    "gradientexplainer": "gradient_shap",
    "guidedbackpropagation": "guided_backprop",
    "deconvnet": "deconvolution",
    "classactivationmap": "cam",
    "smoothgradcampp": "smooth_grad_cam_plus_plus",
    "deepshap": "deep_lift_shap",
    "featureablation": "captum:FeatureAblation",
    "shapleyvaluesampling": "captum:ShapleyValueSampling",
}


def folded(name: str) -> str:
    """Reduce a name to a form that all its spellings share.

    >>> folded("Grad-CAM++")
    'gradcamplusplus'
    """
    return re.sub(r"[\s_-]", "", name).replace("+", "plus").casefold()


def meant(name: str, known: Iterable[str]) -> str | None:
    """Look up the method that a name without a member stands for.

    Args:
        name: A name in any spelling.
        known: The names of visxai's methods.

    Returns:
        A method's name, a captum attribution ("captum:DeepLift"), or None.
    """
    wanted = folded(name)
    return OTHERS.get(wanted) or next((one for one in known if folded(one) == wanted), None)
