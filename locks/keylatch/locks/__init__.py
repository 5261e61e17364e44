"""Lock methods: a PyTorch network in, a locked PyTorch network and its secret out."""

from __future__ import annotations

from keylatch.errors import MissingExtraError

try:
    import torch as _torch  # noqa: F401
except ModuleNotFoundError:
    raise MissingExtraError("locking", "torch", "export") from None

from keylatch.locks._augmentation import no_augment, shift_and_flip
from keylatch.locks._block_gate import BlockDescription
from keylatch.locks._block_lock import block_lock
from keylatch.locks._block_transform import BlockTransform, identity_transform
from keylatch.locks._capture import OutputLayout
from keylatch.locks._channel_key import ChannelKey
from keylatch.locks._channel_lock import channel_lock
from keylatch.locks._code import log2_chance_within
from keylatch.locks._code_description import CodeLockDescription
from keylatch.locks._code_lock import code_lock
from keylatch.locks._detector_lock._description import DetectorKind, DetectorLockDescription
from keylatch.locks._detector_lock._lock import detector_lock
from keylatch.locks._input_spec import IMAGENET_MEAN, IMAGENET_STD, InputSpec
from keylatch.locks._key_training import fine_tune
from keylatch.locks._key_training_report import FineTuned, FineTuneReport, TrainingProgress
from keylatch.locks._locked import Locked
from keylatch.locks._locked_module import LockedModule
from keylatch.locks._mask_pruning._accuracy import DomainAccuracy, DomainDrops, measure_domains
from keylatch.locks._mask_pruning._learning import learn_domain_masks
from keylatch.locks._mask_pruning._masking import masked_model, union_of_masks
from keylatch.locks._mask_pruning._overlap import DomainOverlap, DomainWarning
from keylatch.locks._mask_pruning._report import DomainMaskReport, DomainMasks, MaskReport
from keylatch.locks._mask_pruning._watermark import Watermark, WatermarkVerdict, verify_watermark
from keylatch.locks._model_lock._edit_gate import EditDescription, KeyedEdit
from keylatch.locks._model_lock._edit_key import EditKey
from keylatch.locks._model_lock._edit_tune import edit_tune, score_on
from keylatch.locks._model_lock._edit_tune_report import EditTuned, EditTuneReport
from keylatch.locks._model_lock._edited_images import edit_images
from keylatch.locks._model_lock._editor import Edit, Editor, EditSettings
from keylatch.locks._model_lock._load_editor import load_editor
from keylatch.locks._model_lock._lock import model_lock
from keylatch.locks._model_lock._pixel_editor import PixelEditor
from keylatch.locks._model_lock._pixel_training import train_pixel_editor
from keylatch.locks._model_lock._prompts import STYLE_PROMPTS, PromptRank, made_up_prompts, rank_prompts
from keylatch.locks._model_lock._varied_editor import varied_editor
from keylatch.locks._patch_gate import PatchPlace
from keylatch.locks._report import BlockReport, ChannelReport, DetectorReport, EditReport, LayerReport, LockReport
from keylatch.locks._sample_images import sample_images
from keylatch.locks._secret import LockSecret
from keylatch.locks._stain import stain
from keylatch.locks._stain_report import Stained, StainFacts, StainReport
from keylatch.locks._stain_secret import StainMark, StainSecret
from keylatch.locks._storage import load_locked, load_program, save_locked
from keylatch.locks._training_hints import hint_layers
from keylatch.locks._verify_predictions import PredictionVerdict, verify_stain_predictions
from keylatch.locks._verify_stain import StainMatch, StainVerdict, verify_stain
from keylatch.locks._withheld._domain_masks import MAX_DOMAINS, check_domain_names
from keylatch.locks._withheld._domains import domain_lock
from keylatch.locks._withheld._report import DomainReport, SealReport
from keylatch.locks._withheld._seal import seal_lock

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "MAX_DOMAINS",
    "STYLE_PROMPTS",
    "BlockDescription",
    "BlockReport",
    "BlockTransform",
    "ChannelKey",
    "ChannelReport",
    "CodeLockDescription",
    "DetectorKind",
    "DetectorLockDescription",
    "DetectorReport",
    "DomainAccuracy",
    "DomainDrops",
    "DomainMaskReport",
    "DomainMasks",
    "DomainOverlap",
    "DomainReport",
    "DomainWarning",
    "Edit",
    "EditDescription",
    "EditKey",
    "EditReport",
    "EditSettings",
    "EditTuneReport",
    "EditTuned",
    "Editor",
    "FineTuneReport",
    "FineTuned",
    "InputSpec",
    "KeyedEdit",
    "LayerReport",
    "LockReport",
    "LockSecret",
    "Locked",
    "LockedModule",
    "MaskReport",
    "OutputLayout",
    "PatchPlace",
    "PixelEditor",
    "PredictionVerdict",
    "PromptRank",
    "SealReport",
    "StainFacts",
    "StainMark",
    "StainMatch",
    "StainReport",
    "StainSecret",
    "StainVerdict",
    "Stained",
    "TrainingProgress",
    "Watermark",
    "WatermarkVerdict",
    "block_lock",
    "channel_lock",
    "check_domain_names",
    "code_lock",
    "detector_lock",
    "domain_lock",
    "edit_images",
    "edit_tune",
    "fine_tune",
    "hint_layers",
    "identity_transform",
    "learn_domain_masks",
    "load_editor",
    "load_locked",
    "load_program",
    "log2_chance_within",
    "made_up_prompts",
    "masked_model",
    "measure_domains",
    "model_lock",
    "no_augment",
    "rank_prompts",
    "sample_images",
    "save_locked",
    "score_on",
    "seal_lock",
    "shift_and_flip",
    "stain",
    "train_pixel_editor",
    "union_of_masks",
    "varied_editor",
    "verify_stain",
    "verify_stain_predictions",
    "verify_watermark",
]
