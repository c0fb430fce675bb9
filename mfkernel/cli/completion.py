"""Scripts with which shells complete commands and options."""

import argparse
import re
from typing import Any

SHELLS = ("bash", "zsh", "fish")
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")

BASH = """\
_mfkernel() {{
  local word="${{COMP_WORDS[COMP_CWORD]}}" words
  case "${{COMP_WORDS[1]}}" in
{cases}
    *) words="{commands}" ;;
  esac
  [ "$COMP_CWORD" -eq 1 ] && words="{commands}"
  COMPREPLY=($(compgen -W "$words" -- "$word") $([ "$COMP_CWORD" -gt 1 ] && compgen -f -- "$word"))
}}
complete -o filenames -F _mfkernel mfkernel
"""


def completion(options: argparse.Namespace) -> None:
    """Print the script of a shell."""
    print(script(options.shell, options.commands), end="")


def script(shell: str, commands: dict[str, Any]) -> str:
    """Return the script that completes these commands, each with its parser."""
    flags = {name: dict.fromkeys(FLAG.findall(parser.format_help())) for name, parser in commands.items()}
    if shell == "fish":
        lines = [f"complete -c mfkernel -n __fish_use_subcommand -f -a '{' '.join(flags)}'"]
        lines += [
            f"complete -c mfkernel -n '__fish_seen_subcommand_from {name}' -l {flag[2:]}"
            for name, found in flags.items()
            for flag in found
        ]
        return "\n".join(lines) + "\n"
    cases = "\n".join(f'    {name}) words="{" ".join(found)}" ;;' for name, found in flags.items())
    text = BASH.format(cases=cases, commands=" ".join(flags))
    return text if shell == "bash" else "autoload -U +X bashcompinit && bashcompinit\n" + text
