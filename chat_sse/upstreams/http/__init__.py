"""HTTP/1.1 connections to an upstream: `pool` keeps them, `connection` is one of them."""
