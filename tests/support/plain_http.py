"""httpx2 for servers of plain HTTP. Reading the authorities' certificates costs 24 ms of CPU a client."""

import ssl
from functools import partial

import httpx2

NO_AUTHORITIES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

Client = partial(httpx2.Client, verify=NO_AUTHORITIES)
AsyncClient = partial(httpx2.AsyncClient, verify=NO_AUTHORITIES)
delete = partial(httpx2.delete, verify=NO_AUTHORITIES)
get = partial(httpx2.get, verify=NO_AUTHORITIES)
head = partial(httpx2.head, verify=NO_AUTHORITIES)
options = partial(httpx2.options, verify=NO_AUTHORITIES)
post = partial(httpx2.post, verify=NO_AUTHORITIES)
request = partial(httpx2.request, verify=NO_AUTHORITIES)
stream = partial(httpx2.stream, verify=NO_AUTHORITIES)
