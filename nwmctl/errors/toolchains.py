"""Refusals of compilers and runtimes. One class per distinct refusal; see ``base``."""

from __future__ import annotations

from nwmctl.errors.base import InputError, MissingError, ToolchainError


class UnknownToolchainError(InputError):
    """A recipe names a toolchain that no driver answers for."""


class RecipeOptionError(InputError):
    """A recipe has an option that its toolchain does not know, or a value that it does not take."""


class UnsupportedRecipeError(InputError):
    """A toolchain cannot build this precision for this unit."""


class ToolchainTemplateError(InputError):
    """The declaration of an external toolchain is wrong."""


class TensorMismatchError(InputError):
    """The tensors given to an artifact are not those that it takes."""


class GraphUnreadableError(InputError):
    """A file is not an ONNX graph whose shapes can be known."""


class ToolchainMissingError(MissingError):
    """A compiler or runtime is not installed here."""


class PlaceUnavailableError(MissingError):
    """An artifact cannot execute at the asked place on this machine."""


class CompileFailedError(ToolchainError):
    """A compiler failed, or printed an error although it exited 0."""


class ToolchainTimeoutError(ToolchainError):
    """A compiler or runtime did not end in its time and was killed."""


class InspectionFailedError(ToolchainError):
    """It could not be told what is in an artifact."""


class RuntimeFailedError(ToolchainError):
    """A runtime refused an artifact or its inputs."""


class RuntimeCrashedError(ToolchainError):
    """A runtime's process ended by itself in the middle of its work."""


class EmulationInstallError(ToolchainError):
    """The runtime for emulation could not be fetched or is not what its wheel lists."""
