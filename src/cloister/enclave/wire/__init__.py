"""The one transport of this room's services: frames on a socket, between a client and a service that answers.

What passes is sealed from end to end, so a transport adds nothing to confidentiality and takes nothing from
it. It keeps one client from holding up, putting out or ending another. A service has a `Dialect`: what may be
said, how large, and how it refuses.
"""

from cloister.enclave.wire.address import Address
from cloister.enclave.wire.dialect import Dialect, Kind, Turn
from cloister.enclave.wire.endpoint import WireEndpoint
from cloister.enclave.wire.frames import Channel, Pace
from cloister.enclave.wire.listener import Conversation, Listener, ListenerLimits, Reception

__all__ = [
    "Address",
    "Channel",
    "Conversation",
    "Dialect",
    "Kind",
    "Listener",
    "ListenerLimits",
    "Pace",
    "Reception",
    "Turn",
    "WireEndpoint",
]
