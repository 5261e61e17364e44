"""Fuzzing of every parser that reads what others wrote.

    byte_source      decisions drawn from the fuzzer's bytes
    mutations        originals, changed on purpose: bytes, JSON, base64url, safetensors
    token_mutations  signed tokens, segment by segment
    originals        throw-away keys, and valid files made with them
    make_originals   makes both anew
    attempts         what may come out of a parser: a value or a deliberate error
    parsers/         one harness for each parser
    harnesses        the table of them
    target           one harness under Atheris, as its own process
    run              many of them, and what they found: `make fuzz`

A harness is a plain function of bytes. Under Atheris they are coverage-guided, in `make test` a few hundred are drawn
by Hypothesis, and the committed corpus is replayed; neither needs Atheris.
"""
