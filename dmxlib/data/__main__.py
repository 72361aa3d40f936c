"""`python -m dmxlib.data prepare SET DST [--source DIR]`."""

import argparse

from dmxlib.data.preparation import SETS, prepare
from dmxlib.errors import exit_on_input_error


@exit_on_input_error
def main(argv=None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m dmxlib.data", description="Make a data set ready for dmxlib."
    )
    command = parser.add_subparsers(required=True).add_parser(
        "prepare", help="write one data set, once", argument_default=argparse.SUPPRESS
    )
    command.add_argument("name", metavar="SET", choices=SETS, help=f"one of {', '.join(SETS)}")
    command.add_argument("destination", metavar="DST", help="folder to write to, e.g. data/toy")
    command.add_argument("--source", metavar="DIR", help="where the data set as downloaded lies")
    command.add_argument(
        "--split",
        choices=("singers", "huang"),
        help="mir-1k: no singer in two splits (the default), or the published benchmark's",
    )
    command.add_argument("--sing", action="store_true", help="debian: add sung copies of the voices")
    prepare(**vars(parser.parse_args(argv)))


if __name__ == "__main__":
    main()
