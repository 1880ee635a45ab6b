"""TAB completion of `video-mvit`: verbs first, then Hydra's own answers for the verb's options."""

import sys
from collections.abc import Sequence

BASH = """\
_video_mvit()
{
    COMPREPLY=()
    local word="${COMP_WORDS[COMP_CWORD]}"
    if [ "$COMP_CWORD" -eq 1 ]; then
        compopt +o nospace 2> /dev/null
        COMPREPLY=($(compgen -W "@VERBS@ --help --version" -- "$word"))
        return
    fi
    local verb="${COMP_WORDS[1]}"
    case " @HYDRA_VERBS@ " in
        *" $verb "*) ;;
        *) return ;;
    esac
    # What is before the cursor. Hydra drops the first word, which is the name of a program.
    local line="${COMP_LINE:0:$COMP_POINT}"
    line="${line#*[[:space:]]}"
    local choices=$(COMP_LINE="$line" COMP_POINT=${#line} \\
        "${COMP_WORDS[0]}" "$verb" -sc query=bash 2> /dev/null)
    # Where `=` breaks words, Bash completes only what stands behind it.
    case "$COMP_WORDBREAKS" in
        *=*) word="${line##*[[:space:]]}" ;;
    esac
    COMPREPLY=($(compgen -o nospace -W "$choices" -- "$word"))
    if [[ "$word" == *=* && "$COMP_WORDBREAKS" == *=* ]]; then
        local prefix="${word%"${word##*=}"}"
        COMPREPLY=("${COMPREPLY[@]#"$prefix"}")
    fi
}
complete -o nospace -o default -F _video_mvit video-mvit
"""
# Bash's own functions do it in zsh, too.
ZSH = "autoload -U +X compinit && compinit\nautoload -U +X bashcompinit && bashcompinit\n" + BASH
SCRIPTS = {"bash": BASH, "zsh": ZSH}


def print_completion(words: Sequence[str]) -> None:
    """Print the script for a shell: `eval "$(video-mvit completion bash)"`."""
    from video_mvit.cli import VERBS

    if len(words) != 1 or words[0] not in SCRIPTS:
        sys.exit(f"error: name a shell: video-mvit completion {'|'.join(SCRIPTS)}")
    hydra_verbs = [name for name, verb in VERBS.items() if verb.config]
    script = SCRIPTS[words[0]].replace("@VERBS@", " ".join(VERBS))
    sys.stdout.write(script.replace("@HYDRA_VERBS@", " ".join(hydra_verbs)))
