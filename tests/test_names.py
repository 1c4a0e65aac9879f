"""Methods under the names that other libraries and papers give them."""

from __future__ import annotations

import operator
import re
from pathlib import Path

import pytest

from visxai import methods
from visxai.errors import UnknownName
from visxai.methods._names import OTHERS, folded

# What each library offers for images, by its published package: `docs/methods.md` names all of it.
ELSEWHERE = {
    "saliency 0.2.1": "BlurIG GradCam GradientSaliency GuidedIG IntegratedGradients Occlusion XRAI "
    "GetSmoothedMask GuidedBackprop",
    "xplique 2.0.2": "DeconvNet FEM HsicAttributionMethod SobolAttributionMethod GradCAM GradCAMPP "
    "GradientInput SmoothGrad SquareGrad VarGrad GuidedBackprop IntegratedGradients KernelShap "
    "Lime Occlusion Rise Saliency forgrad CraftTorch CraftTf HolisticCraft Cav Tcav "
    "LabelAwareCounterFactuals NaiveCounterFactuals MMDCritic ProtoDash ProtoGreedy "
    "KLEORGlobalSim KLEORSimMiss Cole SimilarExamples maco optimize",
    "xaitk-saliency 0.15.0": "RISEStack MCRISEStack SlidingWindowStack SBSMStack DRISEStack "
    "RandomGridStack SlidingRadial SquaredDifferenceScoring",
    "pnpxai 0.1.4": "GradCam GuidedGradCam Gradient GradientXInput SmoothGrad VarGrad FullGrad "
    "IntegratedGradients LRPUniformEpsilon LRPEpsilonPlus LRPEpsilonGammaBox RAP KernelShap "
    "LRPEpsilonAlpha2Beta1 DeepLiftShap Lime Gfgp AttentionRollout TransformerAttribution LEAR",
    "obzai 0.2.3": "VanillaCDAMTool SmoothCDAMTool IntegratedCDAMTool IntegratedGradientsTool "
    "PureGradTool SaliencyTool SmoothGradTool InputXGradientTool GradCAMViTTool AttentionMapTool "
    "Regionizer",
    "grad-cam 1.5": "GuidedBackpropReLUModel SESS SegEigenCAM DeepFeatureFactorization sobel_cam",
    "captum 0.9": "NoiseTunnel TCAV CAV SimilarityInfluence TracInCP NaiveInfluenceFunction FGSM "
    "PGD MinParamPerturbation AttackComparator",
    "TorchRay 1.0.0.2": "deconvnet excitation_backprop contrastive_excitation_backprop grad_cam "
    "extremal_perturbation gradient guided_backprop linear_approx rise",
    "tf-keras-vis 0.8.7": "ActivationMaximization Gradcam GradcamPlusPlus Layercam Saliency "
    "Scorecam GuidedBackpropagation",
    "tf-explain 0.3.1": "ExtractActivations GradCAM GradientsInputs IntegratedGradients "
    "OcclusionSensitivity SmoothGrad VanillaGradients",
}

DOCUMENT = Path(__file__).parents[1] / "docs" / "methods.md"
SECTION = DOCUMENT.read_text("utf-8").partition("## Method by method")[2].partition("\n## ")[0]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("GradCAM", "grad_cam"),
        ("Grad-CAM", "grad_cam"),
        ("ScoreCAM", "score_cam"),
        ("gradcam++", "grad_cam_plus_plus"),
        ("GradCAMPlusPlus", "grad_cam_plus_plus"),
        ("DeepLift", "deep_lift"),
        ("GradientShap", "gradient_shap"),
        ("shap", "partition_shap"),
        ("ig", "integrated_gradients"),
        ("IntegratedGradients(steps=8)", "integrated_gradients(steps=8)"),
        ("GradCAM(relu=False)", "grad_cam(relu=False)"),
        ("KernelShap", "kernel_shap"),
    ],
)
def test_names_of_other_libraries_name_our_methods(written: str, meant: str) -> None:
    assert repr(methods.load(written)) == repr(methods.load(meant))
    assert methods.find(written.partition("(")[0]) is methods.find(meant.partition("(")[0])


@pytest.mark.parametrize("name", methods.names())
def test_a_methods_own_name_stands_for_itself_however_it_is_written(name: str) -> None:
    assert folded(name) not in OTHERS
    assert methods.find(name.replace("_", "").upper()) is methods.find(name)


def test_every_other_name_is_one_and_documented() -> None:
    text = DOCUMENT.read_text("utf-8").partition("## Method by method")[0]
    for other, meant in OTHERS.items():
        assert other == folded(other)
        assert methods.load(meant)
        (row,) = [line for line in text.splitlines() if line.startswith(f"| `{meant}` |")]
        assert other in row.partition("|")[2]


def test_the_table_of_libraries_names_every_method() -> None:
    rows = [line for line in SECTION.splitlines() if line.startswith("| `")]
    named = [line.split("`")[1] for line in rows]
    assert len(named) == len(set(named))
    assert set(methods.names()) <= set(named)


@pytest.mark.parametrize(
    ("library", "base"),
    [
        ("pytorch_grad_cam", "base_cam.BaseCAM"),
        ("torchcam.methods", "core._CAM"),
        ("captum.attr", "Attribution"),
    ],
)
def test_whatever_an_installed_library_offers_has_a_name_or_a_reason(
    library: str, base: str
) -> None:
    module = pytest.importorskip(library)
    kind = operator.attrgetter(base)(module)
    offered = {
        name
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, kind) and value is not kind
    }
    credited = re.compile(r"Layer|Neuron|.*LLM|(Gradient|Perturbation)Attribution$")
    offered = {name for name in offered if library != "captum.attr" or not credited.match(name)}
    assert len(offered) >= 10
    assert not [name for name in sorted(offered) if f"`{name}`" not in SECTION]


@pytest.mark.parametrize("library", list(ELSEWHERE))
def test_whatever_another_library_offers_has_a_name_or_a_reason(library: str) -> None:
    assert library in " ".join(SECTION.split())
    assert not [name for name in ELSEWHERE[library].split() if f"`{name}`" not in SECTION]


def test_suggestions_include_captums() -> None:
    with pytest.raises(UnknownName, match="captum:FeatureAblation"):
        methods.load("feature_ablatio")
    with pytest.raises(UnknownName, match="did you mean grad_cam"):
        methods.load("gradcm")
