"""The command line of the listening test; each command imports only what it needs."""

import argparse
from pathlib import Path

from dmxlib.errors import check_named, exit_on_input_error

# Arguments that are folders, as the help names them.
FOLDERS = {
    "estimates": "ESTIMATES",
    "destination": "OUT",
    "folder": "OUT",
    "results": "RESULTS",
    "output_dir": "--output_dir",
}


def run_make(options) -> None:
    from dmxlib.listening.make import make

    make(**vars(options))
    print(f"{options.destination}/README.md says what was made and how to run it.")


def run_serve(options) -> None:
    from dmxlib.listening.serve import serve

    serve(**vars(options))


def run_analyse(options) -> None:
    from dmxlib.listening.analyse import analyse

    print(analyse(**vars(options)))


def run_proxy(options) -> None:
    from dmxlib.listening.analyse import proxy

    print(proxy(**vars(options)))


@exit_on_input_error
def main(argv=None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m dmxlib.listening", description="The listening test, from songs to opinion scores."
    )
    commands = parser.add_subparsers(required=True)

    command = commands.add_parser("make", help="make a test from the songs that systems separated")
    command.add_argument("estimates", metavar="ESTIMATES", help="holds <system>/<song>/vocals.wav")
    command.add_argument("destination", metavar="OUT", help="folder to make")
    command.add_argument("--data_root", required=True, metavar="DIR", help="the data set; its test/ is used")
    command.add_argument(
        "--systems", nargs="+", default=("ldm-dmx", "bsrnn", "hdemucs", "msdm"), metavar="NAME",
        help="default: %(default)s",
    )  # fmt: skip
    command.add_argument("--recordings", type=int, default=6, metavar="N", help="default: %(default)s")
    command.add_argument("--seconds", type=float, default=30.0, metavar="S", help="default: %(default)s")
    command.add_argument("--seed", type=int, default=0, help="chooses the excerpts (default: 0)")
    command.set_defaults(run=run_make)

    command = commands.add_parser("serve", help="show the test in browsers and keep what listeners send")
    command.add_argument("folder", metavar="OUT", help="what `make` made")
    command.add_argument(
        "--host",
        default="127.0.0.1",
        help="default: %(default)s, this machine alone; others need the token in the address that is printed",
    )
    command.add_argument("--port", type=int, default=8000, help="default: 8000; 0 takes any free one")
    command.set_defaults(run=run_serve)

    command = commands.add_parser("analyse", help="mean opinion scores from what listeners sent")
    command.add_argument("results", metavar="RESULTS", help="OUT/results, or webMUSHRA's results folder")
    command.add_argument("--key", metavar="FILE", help="default: key.json in the folder above RESULTS")
    command.add_argument("--output_dir", metavar="DIR", help="default: analysis in the key's folder")
    command.set_defaults(run=run_analyse)

    command = commands.add_parser("proxy", help="DNSMOS P.835 of the test's samples: no listener involved")
    command.add_argument("folder", metavar="OUT", help="what `make` made")
    command.set_defaults(run=run_proxy)

    options = parser.parse_args(argv)
    run = options.__dict__.pop("run")
    for name in FOLDERS.keys() & vars(options).keys():
        if (folder := getattr(options, name)) is not None:
            check_named(folder, FOLDERS[name])
            setattr(options, name, Path(folder))
    run(options)


if __name__ == "__main__":
    main()
