"""The certificate: every form of a network on one batch, and the first place that differs.

The integer graph's oracle is the answer by definition. Against it, tensor by tensor: every kernel
row this CPU can run (forced one at a time), ONNX Runtime at its default and at its lowest
optimization level on the ``qcdq`` and the ``integer`` file, OpenVINO on the latter, and the stepped
FPGA array. The trained fake-quantized network is compared layer by layer in float64 and in float32,
fed by the graph's own codes: in float64 layers folded into exact thresholds must agree to the last
code, layers behind the fixed-point stream carry a bound and their flips are listed.

``replay`` makes a certificate again and names the first thing that is not the same;
``against`` finds the first tensor at which two models of one network part.
"""

from bitfold.certify.against import Bisection, Side, bisect_graphs
from bitfold.certify.against_files import FileSide, bisect_files
from bitfold.certify.certificate import Certificate, certify
from bitfold.certify.inputs import DataSource, FileRecord, Inputs, inputs_of_certificate
from bitfold.certify.proofs import AccumulatorProof
from bitfold.certify.recorded import RecordedCertificate, read_certificate
from bitfold.certify.replay import Change, compare_certificates, compare_file, compare_inputs
from bitfold.certify.stages import FirstDifference, Stage, compare_traces, runtime_stage
from bitfold.certify.trained import LayerRecord

__all__ = [
    # one network, all its forms
    "AccumulatorProof",
    "Certificate",
    "DataSource",
    "FileRecord",
    "FirstDifference",
    "Inputs",
    "LayerRecord",
    "Stage",
    "certify",
    "compare_traces",
    "runtime_stage",
    # two models of one network
    "Bisection",
    "FileSide",
    "Side",
    "bisect_files",
    "bisect_graphs",
    # again
    "Change",
    "RecordedCertificate",
    "compare_certificates",
    "compare_file",
    "compare_inputs",
    "inputs_of_certificate",
    "read_certificate",
]
