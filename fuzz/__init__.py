"""Fuzzing: what reads files and text of strangers is fed with altered ones.

    scripts/fuzz list               the targets
    scripts/fuzz spec 60            new inputs for one target, for 60 seconds
    scripts/fuzz all 60             the same for all targets, one after another
    scripts/fuzz all repeatably     about a minute of new inputs that are the same each time
    scripts/fuzz replay             the inputs in fuzz/corpus only; needs no atheris
    scripts/fuzz corpus             write the seeds of fuzz/corpus anew

A target is a file in fuzz/targets: `seeds()` gives inputs to begin with, by name, and
`check(data)` hands bytes to the code under test. It passes as long as nothing but a VisxaiError
comes out, within the limits of time and memory. Inputs that once did worse stay in the corpus, as
find-*.
"""
