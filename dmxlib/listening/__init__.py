"""The paper's listening test: `python -m dmxlib.listening make | serve | analyse | proxy`, see `--help`.

`make` cuts excerpts from separated test songs into a folder, `serve` shows it to listeners and keeps
what they send, `analyse` turns that into mean opinion scores. The folder also runs in webMUSHRA.
"""
