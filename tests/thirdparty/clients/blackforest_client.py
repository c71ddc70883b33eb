"""Black Forest Labs' own client."""

from blackforest import BFLClient
from blackforest.types.general.client_config import ClientConfig

answer = BFLClient("emulator-key").generate(
    "flux-pro-1.1",
    {"prompt": "a red kite", "width": 512, "height": 512},
    ClientConfig(sync=True, polling_interval=0.1),
)
print("image", answer.result["sample"])
