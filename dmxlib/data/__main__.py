"""`python -m dmxlib.data prepare SET DST [--source DIR]`, `python -m dmxlib.data pack DATA... OUT`."""

import argparse

from dmxlib.data.pack import pack
from dmxlib.data.preparation import SETS, prepare
from dmxlib.errors import check_named, exit_on_input_error


@exit_on_input_error
def main(argv=None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m dmxlib.data", description="Make a data set ready for dmxlib."
    )
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser(
        "prepare", help="write one data set, once", argument_default=argparse.SUPPRESS
    )
    command.set_defaults(run=prepare)
    command.add_argument("name", metavar="SET", choices=SETS, help=f"one of {', '.join(SETS)}")
    command.add_argument("destination", metavar="DST", help="folder to write to, e.g. data/toy")
    command.add_argument("--source", metavar="DIR", help="where the data set as downloaded lies")
    command.add_argument(
        "--split",
        choices=("singers", "huang"),
        help="mir-1k: no singer in two splits (the default), or the published benchmark's",
    )
    command.add_argument(
        "--target",
        metavar="STEM",
        help="musdb18-hq, folder, everything-is-free: the stem that is written beside the mixture (default: "
        "vocals), to a DST of its own",
    )
    command.add_argument("--sing", action="store_true", help="debian: add sung copies of the voices")
    command = commands.add_parser("pack", help="write data sets small, to be carried elsewhere")
    command.set_defaults(run=pack)
    command.add_argument("roots", nargs="+", metavar="DATA", help="folder of a data set")
    command.add_argument("destination", metavar="OUT", help="folder to write to")
    command.add_argument("--size", type=megabytes, default="55MB", help="of all together (default: 55MB)")
    command.add_argument("--mono", action="store_true", help="one channel, for a model that has one")
    options = vars(parser.parse_args(argv))
    check_named(options["destination"], "the folder to write to")
    options.pop("run")(**options)


def megabytes(text: str) -> float:
    """55MB -> 55e6."""
    return 1e6 * float(text.removesuffix("MB"))


if __name__ == "__main__":
    main()
