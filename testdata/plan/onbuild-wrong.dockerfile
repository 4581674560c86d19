FROM bad-onbuild
