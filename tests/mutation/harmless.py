"""Survivors that no test has to notice, and why. They are told apart and do not count."""

# (module, the changed line without its indent): the reason
HARMLESS = {
    (
        "fnas_jax/methods/baselines/bananas.py",
        "rewards=jnp.ones(ctx.capacity, jnp.float32),",
    ): "equivalent: places that hold nothing are masked wherever rewards are read",
    (
        "fnas_jax/methods/fnas/method.py",
        "order = jnp.argsort(level, stable=False)",
    ): "draws of one level are alike, and any order of them is one of chance",
    (
        "fnas_jax/methods/pgnas/method.py",
        "samples=jnp.ones((ctx.proposals, decisions), jnp.int32),",
    ): "equivalent: the first `ask` fills this in before anyone reads it",
    (
        "fnas_jax/methods/rl/ppo.py",
        "log_ratio = jnp.where(batch.weight > 0, log_prob - batch.log_prob, 1.0)",
    ): "equivalent: what weighs nothing enters no mean",
    (
        "fnas_jax/methods/tnas/design.py",
        "cost = jnp.minimum(nearest[:, None], distance).mean(axis=0)",
    ): "equivalent: mean and sum are least at the same place",
    (
        "fnas_jax/methods/scores.py",
        "beyond = (i - last) + (i >= count)",
    ): "equivalent: knots farther out on the same line",
    (
        "fnas_jax/methods/tnas/design.py",
        "TOP = 65  # architectures of source tasks among which the design is made diverse",
    ): "a number that could as well be another one",
    ("fnas_jax/methods/tnas/design.py", "half = TOP // 3"): (
        "a number that could as well be another one"
    ),
    (
        "fnas_jax/methods/tnas/design.py",
        "ELITE = 9  # architectures whose neighbours are candidates, in spaces that are not listed",
    ): "a number that could as well be another one",
    (
        "fnas_jax/methods/tnas/method.py",
        'if ctx.config.adapt <= "all":',
    ): "equivalent: of the three words that are allowed, `all` comes first",
    (
        "fnas_jax/tasks/cache.py",
        "return EvaluationCache("
        "jnp.full((capacity, decisions), - 2, jnp.int32), metrics, jnp.int32(0))",
    ): "equivalent: every negative number stands for a free place",
    (
        "fnas_jax/tasks/data.py",
        "dataset: Dataset, count: int = 21, side: int = 32, classes: int = 100",
    ): "a number that could as well be another one",
    (
        "fnas_jax/tasks/inherited.py",
        "arch = jnp.ones(len(ctx.space.cardinalities), jnp.int32)",
    ): "equivalent: only shapes are read, and they are those of the widest network",
    (
        "fnas_jax/tasks/tabular.py",
        'known.row.at[slot].set(jnp.where(ok, row, - 3), mode="drop"),',
    ): "equivalent: every negative number but -1 says that the reading failed",
}
