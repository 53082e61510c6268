"""The flags of every command: how they are declared, read, and told where they are wrong."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import ml_collections
from absl import flags
from ml_collections import config_flags

from fnas_jax.core import config as config_lib
from fnas_jax.core import config_file, config_values
from fnas_jax.core.exits import OURS, Help
from fnas_jax.core.types import UserError

LOG = logging.getLogger(__name__)
_LONGEST = 100  # characters of a flag's name
_TRUTH = ("true", "false", "t", "f", "1", "0")  # as absl reads them


def parse_flags(
    argv: Sequence[str],
    define: Callable[[flags.FlagValues], object],
    usage: str,
    more: str = "",
) -> flags.FlagValues:
    """The flags that `define` declares, read from `argv` (without the program's name).

    Raises UserError for anything that is not one of them, and Help for --help: `usage`, the flags,
    and `more`.
    """
    values, rest = parse_places(argv, define, usage, more)
    if rest:
        raise UserError(f"unexpected argument {rest[0]!r}; flags are written --name=value")
    return values


def parse_places(
    argv: Sequence[str],
    define: Callable[[flags.FlagValues], object],
    usage: str,
    more: str = "",
) -> tuple[flags.FlagValues, list[str]]:
    """As `parse_flags`, with the arguments beside the flags, e.g. the folders to look at."""
    values = flags.FlagValues()
    values.set_gnu_getopt(True)  # which may stand between them
    define(values)
    flags.DEFINE_boolean(
        "verbose", False, "tell more: tracebacks of what is wrong, too", flag_values=values
    )
    if any(re.fullmatch(r"--?(h|help|helpfull)", arg) for arg in argv):
        listed = (
            f"  --{name}\n        {values[name].help}"
            for name in values
            if isinstance(values[name].help, str) and not name.startswith("config")
        )
        raise Help(usage + "\n\nflags:\n" + "\n".join(listed) + more)
    for argument in argv:
        name = argument.partition("=")[0]
        if argument.startswith("-") and len(name) > _LONGEST:
            # absl looks for near ones of any length, by a recursion.
            raise UserError(f"unknown flag {argument!r}; --help lists all")
    try:
        rest = values(["fnas_jax", *argv])
    except flags.Error as error:
        raise UserError(_flag_message(error)) from None
    if values.verbose:
        logging.getLogger(OURS).setLevel(logging.DEBUG)
    return values, rest[1:]


def require(values: flags.FlagValues, name: str) -> str:
    """The value of flag `name`. Raises UserError where it is missing or empty."""
    if not values[name].value:
        raise UserError(f"--{name} is missing; --help shows how to call this command")
    return str(values[name].value)


def parse_config(
    argv: Sequence[str], define: Callable[[flags.FlagValues], object], usage: str
) -> tuple[ml_collections.ConfigDict, flags.FlagValues]:
    """(validated config, flags of `define`) of --config=FILE and --config.KEY=VALUE in `argv`."""
    path, rest = config_file.take(argv)
    given, rest = split_overrides(rest)
    given = last_of_each(given)
    config = config_lib.default() if path is None else config_file.load(path)
    keys = "\n\nconfiguration (after --config=FILE, whose values they replace):\n"

    def define_all(values: flags.FlagValues) -> None:
        define(values)
        _define_config(values, config, given)

    values = parse_flags([*given, *rest], define_all, usage, keys + config_lib.help_text())
    if path is None and not given:
        raise UserError("--config=FILE is missing; --config=fnas_digits is one to start with")
    return config_lib.validate(values.config), values


def last_of_each(arguments: Sequence[str]) -> list[str]:
    """Of `arguments`, each --config.KEY=VALUE, the last of every key, which counts.

    Scripts append what they change to a command. absl would join what is given for a tuple.
    """
    found: dict[str, str] = {}
    for argument in arguments:
        name = argument.partition("=")[0]
        if found.pop(name, argument) != argument:
            LOG.info("%s is given more than once; %s counts", name, argument)
        found[name] = argument
    return list(found.values())


def split_overrides(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """(those of `argv` that set configuration keys, as --config.KEY=VALUE; the other arguments).

    Taken are --config.KEY=VALUE, --config.KEY VALUE, and --config.KEY and --noconfig.KEY where
    values are true or false. Raises UserError for a KEY that does not exist, without a value, or
    with one beside the no.
    """
    found, rest, arguments = [], [], list(argv)
    while arguments:
        argument = arguments.pop(0)
        named = re.fullmatch(r"--?(no)?config\.([^=]*)(=.*)?", argument, re.DOTALL)
        if named is None:
            rest.append(argument)
            continue
        no, name, value = named.groups()
        if name not in config_lib.all_keys():
            raise config_lib.unknown_key(name)
        if no:
            _check_no(name, value)
        following = arguments[0] if arguments else None
        if value is None and type(config_lib.all_keys()[name].default) is bool:
            given = not no and following is not None and following.lower() in _TRUTH
            value = f"={arguments.pop(0)}" if given else f"={not no}"
        elif value is None:
            if following is None or following.startswith("--"):
                raise UserError(f"--config.{name} needs a value")
            value = f"={arguments.pop(0)}"
        found.append(f"--config.{name}={_literal(name, value[1:])}")
    return found, rest


def _literal(name: str, value: str) -> str:
    """`value` of key `name` as config_flags reads it: names with commas between them, quoted."""
    if not config_lib.all_keys()[name].texts or value.lstrip().startswith(("(", "[")):
        return value
    return repr(config_values.split_texts(value))


def _check_no(name: str, value: str | None) -> None:
    """Raises UserError unless --noconfig.`name` says something; `value`: "=VALUE" behind it."""
    if type(config_lib.all_keys()[name].default) is not bool:
        raise UserError(f"--noconfig.{name}: only a key that is true or false can be said no to")
    if value is not None:
        raise UserError(f"--noconfig.{name} takes no value, and was given {value[1:]!r}")


def override(
    config: ml_collections.ConfigDict,
    arguments: Sequence[str],
    allowed: Sequence[str],
    idle: Mapping[str, str] = MappingProxyType({}),
) -> ml_collections.ConfigDict:
    """`config` with the values of `arguments`, each --config.KEY=VALUE; validated.

    Raises UserError for a key that does not begin with one of `allowed`, for two values of a key,
    and for a key of `idle`, which changes nothing here; its entry there says why.
    """
    changed = config.copy_and_resolve_references()
    given: dict[str, str] = {}
    for argument in arguments:
        name, _, value = argument.partition("config.")[2].partition("=")
        if name not in config_lib.all_keys():
            raise config_lib.unknown_key(name)
        if name in idle:
            raise UserError(f"{name} changes nothing here: {idle[name]}")
        if given.setdefault(name, value) != value:
            raise config_lib.given_twice(name, given[name], value)
        if not name.startswith(tuple(allowed)):
            ways = ", ".join(f"{a}*" if a.endswith(".") else a for a in allowed)
            raise UserError(f"{name} cannot be changed here; allowed are {ways}")

    def define(values: flags.FlagValues) -> None:
        _define_config(values, changed, arguments)

    return config_lib.validate(parse_flags(arguments, define, "").config)


def _define_config(
    values: flags.FlagValues, config: ml_collections.ConfigDict, arguments: Sequence[str]
) -> None:
    """Declares --config.KEY for the keys of `config`, which the flags will change."""
    # config_flags reads the overrides from the list of arguments, types each by its default.
    config_flags.DEFINE_config_dict(
        "config", config, flag_values=values, sys_argv=["fnas_jax", *arguments]
    )


def _flag_message(error: flags.Error) -> str:
    """A sentence for what absl says about a flag."""
    text = str(error)
    override = re.match(r"flag --config\.([\w.]+)=(.*?): ", text, re.DOTALL)
    if override and override[1] in config_lib.all_keys():
        kind = config_values.kind(config_lib.all_keys()[override[1]])
        return f"{override[1]} is {override[2]!r}; it must be {kind}"
    return text.splitlines()[0]


def define_workdir(values: flags.FlagValues) -> None:
    """Declares --workdir."""
    flags.DEFINE_string("workdir", "", "folder that the run writes to", flag_values=values)


def define_hosts(values: flags.FlagValues) -> None:
    """Declares the flags that `hosts.start` needs."""
    flags.DEFINE_string(
        "coordinator", "", "HOST:PORT of host 0, where several hosts search", flag_values=values
    )
    flags.DEFINE_integer("num_hosts", None, "how many there are", flag_values=values)
    flags.DEFINE_integer("host_id", None, "which of them this is, from 0", flag_values=values)


def percent(accuracy: float | None) -> str:
    """0.5 -> "50.00%"."""
    return "unknown" if accuracy is None else f"{100 * accuracy:.2f}%"
