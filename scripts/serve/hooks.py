"""What schemathesis cannot make by itself: policies, and what is read of pictures and media."""

import schemathesis
from hypothesis import strategies as st

POLICIES = [
    b'version = "1"\n',
    b'version = "2"\n[default]\nnot_judged = "allow"\n',
    b'version = "3"\n[default.block]\nface-swap = 0.9\n[tenants.one.review]\nvoice-clone = 0.25\n',
]
schemathesis.openapi.media_type("application/toml", st.sampled_from(POLICIES))


@schemathesis.deserializer("image/*", "audio/*", "video/*", "application/octet-stream")
def as_text(ctx, response):
    return response.content.decode("latin-1")
