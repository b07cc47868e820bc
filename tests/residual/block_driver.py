"""A small host: runs a diffusers Flux by ComfyUI's documented block contract, so that chains are tested anywhere.

The contract: `dit[("double_block", i)](args, {"original_block": f})` with args img, txt, vec, pe, attn_mask and
transformer_options, returning img and txt; `("single_block", i)` the same without txt, its img being text, picture and
reference tokens in one row. A block's output is added to in place (as ControlNet does).
"""

from __future__ import annotations

import torch

from fluxtionary.residual.block_chain import hearing


def inputs(batch=1, text=16, seed=0, reference=0):
    """Random arguments of one call: picture (and reference) tokens, text, pooled text, sigma, ids."""
    generator = torch.Generator().manual_seed(seed)
    rows, columns = torch.meshgrid(torch.arange(8), torch.arange(8), indexing="ij")
    ids = torch.stack([torch.zeros_like(rows), rows, columns], -1).reshape(-1, 3).float()
    extra = ids[:reference] + torch.tensor([1.0, 0.0, 0.0])
    return {
        "hidden_states": torch.randn(batch, 64 + reference, 64, generator=generator),
        "encoder_hidden_states": torch.randn(batch, text, 128, generator=generator),
        "pooled_projections": torch.randn(batch, 64, generator=generator),
        "timestep": torch.full((batch,), 0.5),
        "img_ids": torch.cat([ids, extra]),
        "txt_ids": torch.zeros(text, 3),
    }


@torch.no_grad()
def drive(flux, given, dit=None, control=None):
    """The model's output for `given`, its blocks run through `dit`; `control` is added after every block."""
    dit = dit or {}
    img = flux.x_embedder(given["hidden_states"])
    vec = flux.time_text_embed(given["timestep"] * 1000, given["pooled_projections"])
    txt = flux.context_embedder(given["encoder_hidden_states"])
    pe = flux.pos_embed(torch.cat([given["txt_ids"], given["img_ids"]]))
    fixed = {"vec": vec, "pe": pe, "attn_mask": None, "transformer_options": {}}

    for i, block in enumerate(flux.transformer_blocks):

        def double(args, block=block):
            text, image = block(args["img"], args["txt"], args["vec"], args["pe"])
            return {"img": image, "txt": text}

        args = {"img": img, "txt": txt, **fixed}
        own = dit.get(("double_block", i))
        out = own(args, {"original_block": double}) if own else double(args)
        img, txt = out["img"], out["txt"]
        if control is not None:
            img[:, : control.shape[1]] += control

    length = txt.shape[1]
    img = torch.cat([txt, img], 1)
    for i, block in enumerate(flux.single_transformer_blocks):

        def single(args, block=block):
            text, image = block(args["img"][:, length:], args["img"][:, :length], args["vec"], args["pe"])
            return {"img": torch.cat([text, image], 1)}

        args = {"img": img, **fixed}
        own = dit.get(("single_block", i))
        img = (own(args, {"original_block": single}) if own else single(args))["img"]
        if control is not None:
            img[:, length : length + control.shape[1]] += control
    return flux.proj_out(flux.norm_out(img[:, length:], vec))


def listener(flux):
    """How the driver lets a chain hear hidden MLP units."""

    def listen(site, receive):
        if site.stage == "double":
            block = flux.transformer_blocks[site.block]
            return hearing((block.ff if site.stream == "img" else block.ff_context).net[0], receive)
        return hearing(flux.single_transformer_blocks[site.block].act_mlp, receive)

    return listen
