"""The paper's Algorithm 1 for one image, loop by loop, with the networks of its section 2.1.

Nothing here comes from the package: parameters arrive as a dictionary of tensors, the geometry is
products of 3x3 matrices and a numerical inverse, and interpolation is a sum over four pixels. It
is meant to be read beside the paper, not to be fast.
"""

import math

import torch


class Reference:
    """Runs one program z^K, a vector, into an image.

    Args:
        parameters: the hypernetwork's own tensors by name.
        heads: by name (Θ, bias), both linear in the features, as `head` reads them.
        steps: tau of each level, top first.
        feedback: "canvas" (the child's canvas goes back into E) or "decoding" (the parent's own
            decoding of it does).
        bounds: min_scale, max_scale, max_rotation, max_shear, max_translation.
    """

    def __init__(
        self, parameters, heads, steps, feedback, channels, image_size, patch_size, bounds
    ):
        self.p, self.heads, self.steps, self.feedback = parameters, heads, steps, feedback
        self.channels, self.image_size, self.patch_size = channels, image_size, patch_size
        self.bounds = bounds

    # ---- the hypernetwork -------------------------------------------------------------------

    def trunk(self, z):
        g, i = z, 0
        while f"trunk.{i}.weight" in self.p:
            g = elu(self.p[f"trunk.{i}.weight"] @ g + self.p[f"trunk.{i}.bias"])
            i += 1
        return g

    def head(self, theta, g):
        """What a head gives: Θ_0 + Σ_r g_r Θ_r, or Θ_0 alone where all programs share it."""
        out = theta[0].clone()
        for r in range(1, len(theta)):
            out = out + g[r - 1] * theta[r]
        return out

    def vector(self, name, g):
        return self.head(self.heads[name][1], g)

    def linear(self, name, g):
        """A generated layer's matrix and bias."""
        theta, bias = self.heads[name]
        return self.head(theta, g), 0.0 if bias is None else self.head(bias, g)

    # ---- geometry ---------------------------------------------------------------------------

    def action(self, raw):
        low, high, rotation, shear, translation = self.bounds
        sx = low + (high - low) / (1 + torch.exp(-raw[0]))
        sy = low + (high - low) / (1 + torch.exp(-raw[1]))
        turned, leaning = rotation * torch.tanh(raw[2]), shear * torch.tanh(raw[3])
        x, y = translation * torch.tanh(raw[4]), translation * torch.tanh(raw[5])
        return torch.stack([sx, sy, turned, leaning, x, y])

    def place(self, patch, a, size):
        """Read the patch, at each pixel centre of the parent's canvas."""
        return look(patch, torch.linalg.inv(affine(a)), size)

    # ---- Algorithm 1 ------------------------------------------------------------------------

    def run(self, z, level):
        """The canvas of the program z at this level."""
        g = self.trunk(z)
        W_pixels, _ = self.linear("encode.pixels", g)
        W_action, b_1 = self.linear("encode.0", g)
        E = [
            (torch.cat([W_pixels, W_action], 1), b_1),
            self.linear("encode.1", g),
            self.linear("encode.2", g),
        ]
        T = [self.linear(f"act.{i}", g) for i in range(3)]
        D = [self.linear("decode.0", g), self.linear("decode.1", g), self.linear("decode.2", g)]
        W_state, b_state = self.linear("f_state", g)
        W_policy, b_policy = self.linear("f_policy", g)
        h_state = torch.tanh(self.vector("h_state", g))
        h_policy = torch.tanh(self.vector("h_policy", g))
        x_hat = 1 / (1 + torch.exp(-self.vector("patch", g)))
        a = self.action(self.vector("action", g))

        size = self.image_size if level == len(self.steps) else self.patch_size
        canvas = torch.zeros(self.channels, size, size, dtype=z.dtype)
        for _ in range(self.steps[len(self.steps) - level]):
            e = mlp(E, torch.cat([x_hat, a]))
            h_state = torch.tanh(W_state @ torch.cat([e, h_state]) + b_state)
            h_policy = torch.tanh(W_policy @ torch.cat([e, h_policy]) + b_policy)
            a = self.action(mlp(T, h_policy))
            shape = (self.channels, self.patch_size, self.patch_size)
            decoding = (1 / (1 + torch.exp(-mlp(D, h_state)))).reshape(shape)
            patch = self.run(h_state, level - 1) if level > 1 else decoding
            canvas = canvas + self.place(patch, a, size)
            x_hat = (patch if self.feedback == "canvas" else decoding).flatten()
        return canvas


def affine(a):
    """An action as a matrix, 3x3: from the part's frame to its parent's."""
    sx, sy, turned, leaning, x, y = a
    one, zero = torch.ones_like(x), torch.zeros_like(x)
    scale = torch.stack([sx, zero, zero, zero, sy, zero, zero, zero, one]).reshape(3, 3)
    shear = torch.stack([one, leaning, zero, zero, one, zero, zero, zero, one]).reshape(3, 3)
    c, s = torch.cos(turned), torch.sin(turned)
    rotate = torch.stack([c, -s, zero, s, c, zero, zero, zero, one]).reshape(3, 3)
    move = torch.stack([one, zero, x, zero, one, y, zero, zero, one]).reshape(3, 3)
    return move @ rotate @ shear @ scale


def look(picture, matrix, size):
    """A picture, (C, H, H), read where a matrix takes each pixel centre of a canvas."""
    canvas = []
    for row in range(size):
        for column in range(size):
            p = [(2 * column + 1) / size - 1, (2 * row + 1) / size - 1, 1.0]
            u = matrix @ torch.tensor(p, dtype=matrix.dtype)
            canvas.append(read(picture, u[0], u[1]))
    return torch.stack(canvas, 1).reshape(len(picture), size, size)


def read(patch, u, v):
    """Bilinear interpolation; pixels outside the patch are blank."""
    n = patch.shape[-1]
    column, row = ((u + 1) * n - 1) / 2, ((v + 1) * n - 1) / 2
    value = torch.zeros(len(patch), dtype=patch.dtype)
    for i in (math.floor(row.detach()), math.floor(row.detach()) + 1):
        for j in (math.floor(column.detach()), math.floor(column.detach()) + 1):
            if 0 <= i < n and 0 <= j < n:
                weight = (1 - abs(row - i)) * (1 - abs(column - j))
                value = value + weight * patch[:, i, j]
    return value


def elu(x):
    return torch.where(x > 0, x, torch.exp(torch.minimum(x, torch.zeros_like(x))) - 1)


def mlp(layers, x):
    (W_1, b_1), (W_2, b_2), (W_3, b_3) = layers
    return W_3 @ elu(W_2 @ elu(W_1 @ x + b_1) + b_2) + b_3
