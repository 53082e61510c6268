"""What `make mutants` changes, and which tests are to notice."""

import pathlib

ROOT = pathlib.Path(__file__).resolve().parents[2]

# Per module, or folder of modules, the quick tests that speak for it, soonest done first. The first
# line that fits a file counts. Numbers of a configuration are no logic: `config.py` is left out.
TESTS = {
    "methods/fnas/acquire.py": "methods/fnas/test_acquire.py methods/fnas/test_wiring.py",
    "methods/fnas/build.py": "methods/fnas/test_wiring.py methods/fnas/test_build.py",
    "methods/fnas/critic.py": "methods/fnas/test_critic.py methods/fnas/test_uac.py",
    "methods/fnas/decision.py": "methods/fnas/test_decision.py methods/fnas/test_wiring.py",
    "methods/fnas/gp_critic.py": "methods/fnas/test_uac.py",
    "methods/fnas/grid.py": "methods/fnas/test_processes.py",
    "methods/fnas/imagination.py": "methods/fnas/test_imagination.py",
    "methods/fnas/improvement.py": "methods/fnas/test_processes.py",
    "methods/fnas/mlp_critic.py": "methods/fnas/test_mlp_critic.py methods/fnas/test_uac.py",
    "methods/fnas/processes.py": "methods/fnas/test_processes.py",
    "methods/fnas/replay.py": "methods/fnas/test_replay.py methods/fnas/test_wiring.py",
    "methods/fnas/transfer.py": "methods/fnas/test_wiring.py methods/fnas/test_transfer.py",
    "methods/fnas/uac.py": "methods/fnas/test_uac.py methods/fnas/test_wiring.py",
    "methods/fnas": "methods/fnas/test_wiring.py methods/fnas/test_method.py",
    "methods/rl/policy.py": "methods/rl/test_policy.py",
    "methods/rl": "methods/rl/test_ppo.py methods/baselines/test_ppo.py",
    "methods/tnas/build.py": "methods/tnas/test_build.py",
    "methods/tnas/design.py": "methods/tnas/test_design.py",
    "methods/tnas/gp_mixture.py": "methods/tnas/test_gp_mixture.py",
    "methods/tnas/graph_encoder.py": "methods/tnas/test_encoders.py",
    "methods/tnas/layers.py": "methods/tnas/test_encoders.py",
    "methods/tnas/losses.py": "methods/tnas/test_meta.py",
    "methods/tnas/meta.py": "methods/tnas/test_meta.py",
    "methods/tnas/networks.py": "methods/tnas/test_surrogate.py methods/tnas/test_encoders.py",
    "methods/tnas/set_encoder.py": "methods/tnas/test_encoders.py",
    "methods/tnas/source_tasks.py": "methods/tnas/test_source_tasks.py",
    "methods/tnas/stored.py": "methods/tnas/test_build.py",
    "methods/tnas/surrogate.py": "methods/tnas/test_surrogate.py methods/tnas/test_gp_mixture.py",
    "methods/tnas/transfer.py": "methods/tnas/test_build.py",
    "methods/tnas": "methods/tnas/test_method.py",
    "methods/pgnas/build.py": "methods/pgnas/test_build.py",
    "methods/pgnas/elbo.py": "methods/pgnas/test_elbo.py methods/pgnas/test_step.py",
    "methods/pgnas/posterior.py": "methods/pgnas/test_posterior.py",
    "methods/pgnas/step.py": "methods/pgnas/test_step.py methods/pgnas/test_method.py",
    "methods/pgnas": "methods/pgnas/test_method.py methods/pgnas/test_build.py",
    "methods/baselines/bananas.py": "methods/baselines/test_bananas.py",
    "methods/baselines/evolution.py": "methods/baselines/test_evolution.py",
    "methods/baselines/gp.py": "methods/baselines/test_gp.py",
    "methods/baselines/local.py": "methods/baselines/test_local.py",
    "methods/baselines/ppo.py": "methods/baselines/test_ppo.py",
    "methods/baselines/random.py": "methods/baselines/test_random.py",
    "methods/best.py": "methods/baselines/test_random.py methods/baselines/test_evolution.py",
    "methods/candidates.py": "methods/test_scores.py",
    "methods/scores.py": "methods/test_scores.py",
    "tasks/augment.py": "tasks/test_augment.py",
    "tasks/augment_choice.py": "tasks/test_augment_choice.py",
    "tasks/colour.py": "tasks/test_colour.py",
    "tasks/cache.py": "tasks/test_cache.py",
    "tasks/children_evaluator.py": "tasks/test_finalists.py tasks/test_children_evaluator.py",
    "tasks/data.py": "tasks/test_data.py",
    "tasks/entrants.py": "tasks/test_entrants.py",
    "tasks/finalists.py": "tasks/test_finalists.py",
    "tasks/inherited.py": "tasks/test_inherited.py methods/pgnas/test_build.py",
    "tasks/policy.py": "tasks/test_policy.py tasks/test_recipe.py",
    "tasks/population_trainer.py": "tasks/test_several_hosts.py tasks/test_finalists.py",
    "tasks/protocols.py": "tasks/test_protocols.py",
    "tasks/readers/named.py": "tasks/test_data.py",
    "tasks/readers": "tasks/readers",
    "tasks/recipe.py": "tasks/test_recipe.py",
    "tasks/reference.py": "tasks/test_reference.py",
    "tasks/tables.py": "tasks/test_tables.py",
    "tasks/plain_table.py": "tasks/test_plain_table.py tasks/test_table_metric.py",
    "tasks/table_index.py": "tasks/test_table_index.py tasks/test_tabular.py",
    "tasks/table_metric.py": "tasks/test_table_metric.py tasks/test_plain_table.py",
    "tasks/tabular.py": "tasks/test_tabular.py",
    "tasks/winner.py": "tasks/test_winner.py tasks/test_images.py",
    "tasks/images.py": "tasks/test_winner.py tasks/test_images.py",
    "tasks/latency.py": "tasks/test_latency.py",
    "tasks/long_batches.py": "tasks/test_long_batches.py",
    "core/callables.py": "core/test_callables.py",
    "tasks/cheapest.py": "tasks/test_latency.py test_limits.py",
    "tasks": "tasks/test_children_evaluator.py",
    "training/recipe.py": "training/test_recipe.py",
    "training/parallel.py": "training/test_parallel.py",
    "training/parts.py": "training/test_parts.py tasks/test_entrants.py tasks/test_long_batches.py",
    "training/streaming.py": "training/test_streaming.py tasks/test_long_batches.py",
    "core/compiled.py": "core/test_compiled.py",
    "core/apart.py": "core/test_apart.py test_saving.py",
    "core/keep.py": "core/test_keep.py",
    "core/disk.py": "core/test_disk.py",
    "core/npy.py": "tasks/readers/test_hostile.py knowledge/test_pins.py",
    "core/signals.py": "core/test_signals.py",
    "core/delivery.py": "core/test_delivery.py",
    "core/logging.py": "core/test_logging.py",
    "core/pace.py": "core/test_pace.py",
    "core/progress.py": "core/test_progress.py",
    "core/stages.py": "core/test_stages.py",
    "core/tensorboard.py": "core/test_logging.py",
    "core/sender.py": "core/test_sender.py core/test_tracking.py",
    "core/tracking.py": "core/test_tracking.py",
    "knowledge/listing.py": "knowledge/test_listing.py",
    "knowledge/merge.py": "knowledge/test_merge.py",
    "knowledge/reading.py": "knowledge/test_merge.py",
    "spaces/known.py": "knowledge/test_listing.py",
    "importing.py": "test_stores.py",
    "stores.py": "test_stores.py",
    "standing.py": "test_status.py",
    "status.py": "test_status.py",
    "trials.py": "test_trials.py",
    "ship/best.py": "ship/test_best.py",
    "ship/flax_source.py": "ship/test_export.py",
    "ship/formats.py": "ship/test_export.py",
    "ship/judge.py": "ship/test_export.py",
    "ship/outside.py": "ship/test_export.py",
    "export.py": "ship/test_export.py",
    "ship/inputs.py": "ship/test_inputs.py ship/test_model.py",
    "ship/labels.py": "ship/test_model.py test_segmentation.py",
    "ship/mask_files.py": "test_segmentation.py",
    "ship/model.py": "ship/test_model.py",
    "ship/winner.py": "ship/test_winner.py",
    "ship/stopwatch.py": "test_latency.py",
    "timing/units.py": "timing/test_units.py timing/test_lookup.py",
    "timing/operations.py": "timing/test_units.py",
    "timing/lookup.py": "timing/test_lookup.py",
    "timing/table.py": "timing/test_table.py",
    "timing/make.py": "test_latency.py",
    "timing": "timing/test_fit.py test_latency.py",
    "latency.py": "test_latency.py",
    "iteration.py": "test_iteration.py",
    "pareto.py": "test_pareto.py",
    "retrain.py": "test_retrain.py",
    "saving.py": "test_saving.py",
    "scan.py": "test_scan.py",
    "shortlist.py": "test_shortlist.py",
}


def tests_of(module: pathlib.Path) -> list[str]:
    """Paths of the tests that speak for `module`, both from the root. None of them: [].

    Names of folders stand for all modules in them that no line names.
    """
    inside = module.relative_to("fnas_jax")
    if inside.name in ("__init__.py", "config.py"):
        return []
    for name, tests in TESTS.items():
        if inside.is_relative_to(name):
            return [f"tests/{test}" for test in tests.split()]
    return []


def modules(root: pathlib.Path = ROOT) -> list[pathlib.Path]:
    """Modules that are changed, from the root."""
    found = sorted(path.relative_to(root) for path in (root / "fnas_jax").rglob("*.py"))
    return [path for path in found if tests_of(path)]
