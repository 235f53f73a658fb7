"""Refusals of compilers and runtimes. One class per distinct refusal; see ``base``."""

from __future__ import annotations

from nwmctl.errors.base import InputError, MissingError, ToolchainError


class UnknownToolchainError(InputError):
    """A recipe names a toolchain that no driver answers for."""


class RecipeOptionError(InputError):
    """A recipe has an option that its toolchain does not know, or a value that it does not take."""


class CandidateRefusedError(InputError):
    """One recipe cannot be built from this model, here; another one may."""


class UnsupportedRecipeError(CandidateRefusedError):
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


class ErrorSaidError(CompileFailedError):
    """A compiler exited 0 and printed an error."""


class RunawayOutputError(CompileFailedError):
    """A compiler printed without end."""


class ToolchainTimeoutError(ToolchainError):
    """A compiler or runtime did not end in its time and was killed."""


class ToolMemoryError(ToolchainError):
    """A compiler or runtime needed more memory, with all its processes, than it may have."""


class ScratchOverflowError(ToolchainError):
    """A compiler wrote more into its folder than it may, or as much as the disk held."""


class DriverAnswerError(CompileFailedError):
    """A driver's answer contradicts what it was asked, or itself."""


class PayloadNotPlainError(CompileFailedError):
    """What a compiler left as its payload is a link, a folder or a device."""


class PayloadUnchangedError(CompileFailedError):
    """A compiler handed its input back as its payload."""


class PromiseBrokenError(CompileFailedError):
    """A recipe asks for something of which nothing was found in the payload."""


class PathInArtifactError(CompileFailedError):
    """A payload or its manifest holds a path of the machine that it was made on."""


class InspectionFailedError(ToolchainError):
    """It could not be told what is in an artifact."""


class RuntimeFailedError(ToolchainError):
    """A runtime refused an artifact or its inputs."""


class RuntimeCrashedError(ToolchainError):
    """A runtime's process ended by itself in the middle of its work."""


class EmulationInstallError(ToolchainError):
    """The runtime for emulation could not be fetched or is not what its wheel lists."""


class OperatorUnsupportedError(GraphUnreadableError):
    """A graph has an operator that no compiler of ours knows."""


class DimensionOpenError(GraphUnreadableError):
    """A graph has a dimension without a number, other than the batch."""


class ExternalDataMissingError(GraphUnreadableError):
    """A graph's weights lie in another file, and that file was not given."""


class ExternalDataOutsideError(GraphUnreadableError):
    """A graph names a file of weights that lies outside its package."""


class ExternalDataDamagedError(GraphUnreadableError):
    """A graph's file of weights is shorter than the graph says, or is another one."""


class GraphTooLargeError(GraphUnreadableError):
    """A graph cannot be lowered within the memory that was allowed."""


class WeightsRangeError(GraphUnreadableError, CandidateRefusedError):
    """A graph's weights leave the range of the precision that a recipe asks for."""


class CalibrationMismatchError(CandidateRefusedError):
    """Calibration data is missing, or is not for this model's inputs."""


class GroupUnknownError(CandidateRefusedError):
    """A recipe keeps a group of layers that the model does not have."""


class NothingToQuantiseError(CandidateRefusedError):
    """A recipe asks for int8 and leaves nothing to quantise."""


class QuantisationLostError(ToolchainError):
    """A lowered graph has fewer quantised products than were asked for."""


class GraphNotSplittableError(InputError):
    """A graph has no place at which it could be cut over two chips."""


class ChipsTooFewError(InputError):
    """A graph is to be split over two chips of a variant that has fewer of them."""


class SplitChangedError(ToolchainError):
    """The two parts of a split graph do not give what the whole gives."""


class AssemblyFailedError(ToolchainError):
    """A chip's assembler refused a kernel."""


class MachineCodeMissingError(ToolchainError):
    """An artifact that was to carry a chip's machine code carries something else."""


class CoLoadError(ToolchainError):
    """What was declared to run beside a measurement is unknown, does not start, or ended too early."""
