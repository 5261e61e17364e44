"""The attacks, in the order of reports. One class, one file.

no_key, random_key, near_key                the model as it is, and with wrong keys
random_block_key, near_block_key            the same with wrong keys of a block transform
key_hill_climbing, key_gradient             searches for the code
block_key_search, block_key_gradient, block_feature_matching    searches for the key of a block transform
prompt_guessing                             a search for the prompt of an edit
trigger_inversion                           a search for the patch
logit_recentering, normalization_reestimation, sign_recovery    repair without labels
gate_removal, gate_fitting, branch_removal  the gates cut out, or open
linear_probe, fine_tuning, noisy_fine_tuning    training on what the model still knows
channel_ablation, pruning, zero_refill      surgery on channels and weights
base_matching, stem_matching                comparison with the public base
interception, known_pair                    what a key holder sees
"""

from __future__ import annotations

from keylatch.audit._attack import Attack
from keylatch.audit.attacks.base_matching import BaseMatching
from keylatch.audit.attacks.block_feature_matching import BlockFeatureMatching
from keylatch.audit.attacks.block_key_gradient import BlockKeyGradient
from keylatch.audit.attacks.block_key_search import BlockKeySearch
from keylatch.audit.attacks.branch_removal import BranchRemoval
from keylatch.audit.attacks.channel_ablation import ChannelAblation
from keylatch.audit.attacks.fine_tuning import FineTuning
from keylatch.audit.attacks.gate_fitting import GateFitting
from keylatch.audit.attacks.gate_removal import GateRemoval
from keylatch.audit.attacks.interception import Interception
from keylatch.audit.attacks.key_gradient import KeyGradient
from keylatch.audit.attacks.key_hill_climbing import KeyHillClimbing
from keylatch.audit.attacks.known_pair import KnownPair
from keylatch.audit.attacks.linear_probe import LinearProbe
from keylatch.audit.attacks.logit_recentering import LogitRecentering
from keylatch.audit.attacks.near_block_key import NearBlockKey
from keylatch.audit.attacks.near_key import NearKey
from keylatch.audit.attacks.no_key import NoKey
from keylatch.audit.attacks.noisy_fine_tuning import NoisyFineTuning
from keylatch.audit.attacks.normalization_reestimation import NormalizationReestimation
from keylatch.audit.attacks.prompt_guessing import PromptGuessing
from keylatch.audit.attacks.pruning import Pruning
from keylatch.audit.attacks.random_block_key import RandomBlockKey
from keylatch.audit.attacks.random_key import RandomKey
from keylatch.audit.attacks.sign_recovery import SignRecovery
from keylatch.audit.attacks.stem_matching import StemMatching
from keylatch.audit.attacks.trigger_inversion import TriggerInversion
from keylatch.audit.attacks.zero_refill import ZeroRefill

ATTACKS: tuple[Attack, ...] = (
    NoKey(),
    RandomKey(),
    NearKey(),
    RandomBlockKey(),
    NearBlockKey(),
    KeyHillClimbing(),
    KeyGradient(),
    BlockKeySearch(),
    BlockKeyGradient(),
    BlockFeatureMatching(),
    PromptGuessing(),
    TriggerInversion(),
    LogitRecentering(),
    NormalizationReestimation(),
    SignRecovery(),
    GateRemoval(),
    GateFitting(),
    BranchRemoval(),
    LinearProbe(),
    FineTuning("last"),
    FineTuning("gates"),
    FineTuning("all"),
    NoisyFineTuning(),
    ChannelAblation(),
    Pruning(),
    ZeroRefill(),
    BaseMatching(),
    StemMatching(),
    Interception(),
    KnownPair(),
)

__all__ = ["ATTACKS"]
