"""The version of the package: read by the build, sent as `$lib_version`."""

__version__ = "0.1.0"
