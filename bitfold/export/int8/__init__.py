"""The int8 network to race against: the topology of an integer graph, for other engines.

``int8_peer`` reads the topology and calibrates it; ``peer_onnx`` writes U8S8 QDQ for ONNX Runtime
and OpenVINO, ``peer_tflite`` a flatbuffer for LiteRT. All three compute the same network.
"""

from bitfold.export.int8.calibration import Affine, Int8Peer, int8_peer
from bitfold.export.int8.onnx_writer import peer_onnx
from bitfold.export.int8.tflite_writer import peer_tflite
from bitfold.export.int8.topology import PeerLayer, peer_layers

__all__ = [
    "Affine",
    "Int8Peer",
    "PeerLayer",
    "int8_peer",
    "peer_layers",
    "peer_onnx",
    "peer_tflite",
]
