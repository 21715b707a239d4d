"""Where a command and all that it has started listen."""

import ipaddress

import psutil


def family(pid: int) -> list[psutil.Process]:
    """The process and all that it has started, which are there still."""
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def doors(pid: int) -> set[str]:
    """Addresses at which they listen for others, sockets in files not among them."""
    found = set()
    for one in family(pid):
        try:
            listening = [each for each in one.net_connections("inet") if each.status == psutil.CONN_LISTEN]
        except psutil.Error:  # it has ended
            continue
        found |= {each.laddr.ip for each in listening}
    return found


def beyond_loopback(addresses: set[str]) -> list[str]:
    """Those that another machine could reach."""
    return sorted(one for one in addresses if not ipaddress.ip_address(one).is_loopback)
