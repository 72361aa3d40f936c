"""The paper's listening test: `python -m dmxlib.listening make | serve | analyse | proxy`, see `--help`.

`make` cuts excerpts from separated test songs into a folder, which `serve` shows to listeners, page after page;
`analyse` turns what they sent into mean opinion scores. The folder also runs in webMUSHRA.
"""
