"""Other programs' rules that stand in our clients' way: seen, told, and never touched.

An accept of ours does not lift a drop of another's: nftables asks every base chain of a hook
(nft(8), "verdict statements"). Docker sets iptables' FORWARD policy to drop on each host it runs
on, which is the commonest "connected but no internet". Edges of the room `kernel` and the wiring
may import it.
"""

from __future__ import annotations

from ocgate.kernel.nft import Nft
from ocgate.kernel.nft_chains import FORWARD
from ocgate.names import NFT_TABLE, NFT_TABLE_GATEWAY


def dropping_forward_chains(nft: Nft) -> tuple[str, ...]:
    """`FAMILY TABLE CHAIN` of foreign chains at the forward hook whose policy is drop."""
    return tuple(
        f"{chain.family} {chain.table} {chain.name}"
        for chain in nft.chains()
        if chain.hook == FORWARD
        and chain.drops
        and chain.table not in (NFT_TABLE, NFT_TABLE_GATEWAY)
    )
