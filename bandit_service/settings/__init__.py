"""Every setting, its default, what is allowed, and where its value came from.

One optional TOML file, every key overridable by the environment: `[server] port` is
`BANDIT_SERVER_PORT`. The whole is checked at start: all mistakes at once, each with its key.
`reading` is the only reader of the environment.
"""

from bandit_service.settings.arms_and_judges import arm_and_judge_mistakes, check_arm_among
from bandit_service.settings.derived import (
    cut_off,
    experiment_rules,
    exploration,
    exposure,
    following,
    load_policy,
    not_configured,
    policy_key,
)
from bandit_service.settings.pool_logs import default_of, map_of, named, others_of
from bandit_service.settings.pools import Pool, PoolSpec
from bandit_service.settings.reading import (
    PREFIX,
    BadSettings,
    read,
    service_asked,
    variables_there,
)
from bandit_service.settings.rule import Rule
from bandit_service.settings.sections.gateway import DuelSettings, GatewaySettings
from bandit_service.settings.sections.learning import (
    DriftSettings,
    Embedding,
    ExperimentSettings,
    ExplorationSettings,
    FeedbackSettings,
    HistorySettings,
    PolicySettings,
    RewardSettings,
)
from bandit_service.settings.sections.serving import (
    MonitoringSettings,
    SecuritySettings,
    Server,
    TracingSettings,
)
from bandit_service.settings.sections.storage import (
    LogSettings,
    RetentionSettings,
    SnapshotSettings,
    TextsSettings,
)
from bandit_service.settings.tables import (
    BesideSpec,
    arm_spec,
    check_callable,
    check_served,
)
from bandit_service.settings.whole import DEFAULT_ARMS, Settings, digest_of, rules

__all__ = [
    "DEFAULT_ARMS",
    "PREFIX",
    "BadSettings",
    "BesideSpec",
    "DriftSettings",
    "DuelSettings",
    "Embedding",
    "ExperimentSettings",
    "ExplorationSettings",
    "FeedbackSettings",
    "GatewaySettings",
    "HistorySettings",
    "LogSettings",
    "MonitoringSettings",
    "PolicySettings",
    "Pool",
    "PoolSpec",
    "RetentionSettings",
    "RewardSettings",
    "Rule",
    "SecuritySettings",
    "Server",
    "Settings",
    "SnapshotSettings",
    "TextsSettings",
    "TracingSettings",
    "arm_and_judge_mistakes",
    "arm_spec",
    "check_arm_among",
    "check_callable",
    "check_served",
    "cut_off",
    "default_of",
    "digest_of",
    "experiment_rules",
    "exploration",
    "exposure",
    "following",
    "load_policy",
    "map_of",
    "named",
    "not_configured",
    "others_of",
    "policy_key",
    "read",
    "rules",
    "service_asked",
    "variables_there",
]
