//! Small grey pictures in a terminal.

/// How to draw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Two pixels per character, in 24-bit grey.
    Colour,
    /// Shades of one colour, one character for two pixels.
    Plain,
}

impl Style {
    /// Colour on a terminal unless `NO_COLOR` or the kind of terminal speaks against it.
    pub fn of_terminal(terminal: bool, no_color: bool, dumb: bool) -> Style {
        if terminal && !no_color && !dumb { Style::Colour } else { Style::Plain }
    }
}

/// The characters of the plain style, from black to white.
const SHADES: [char; 5] = [' ', '░', '▒', '▓', '█'];

/// Lines of a picture of `pixels`, `side` by `side` values from 0 to 1, drawn `size` columns wide and half
/// as many lines tall; `size` is even.
pub fn draw(pixels: &[f32], side: usize, size: usize, style: Style) -> Vec<String> {
    let at = |row: usize, column: usize| sample(pixels, side, row, column, size);
    (0..size)
        .step_by(2)
        .map(|row| {
            let cells = (0..size).map(|column| cell(at(row, column), at(row + 1, column), style));
            let line: String = cells.collect();
            if style == Style::Colour { line + "\x1b[0m" } else { line }
        })
        .collect()
}

fn cell(upper: f32, lower: f32, style: Style) -> String {
    match style {
        Style::Colour => {
            let (u, l) = ((upper * 255.0) as u8, (lower * 255.0) as u8);
            format!("\x1b[38;2;{u};{u};{u}m\x1b[48;2;{l};{l};{l}m▀")
        }
        Style::Plain => {
            let level = (upper + lower) / 2.0 * (SHADES.len() - 1) as f32;
            SHADES[(level.round() as usize).min(SHADES.len() - 1)].to_string()
        }
    }
}

/// The picture at the centre of a cell of the enlarged one, between the four nearest pixels.
fn sample(pixels: &[f32], side: usize, row: usize, column: usize, size: usize) -> f32 {
    let place = |i: usize| {
        let last = (side - 1) as f32;
        let x = ((i as f32 + 0.5) * side as f32 / size as f32 - 0.5).clamp(0.0, last);
        (x as usize, (x as usize + 1).min(side - 1), x.fract())
    };
    let ((r0, r1, fr), (c0, c1, fc)) = (place(row), place(column));
    let across = |r: usize| pixels[r * side + c0] * (1.0 - fc) + pixels[r * side + c1] * fc;
    across(r0) * (1.0 - fr) + across(r1) * fr
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_at_its_own_size_is_itself() {
        let pixels = [0.0, 1.0, 0.0, 1.0];
        assert_eq!(draw(&pixels, 2, 2, Style::Plain), [" █"]);
        let colour = draw(&pixels, 2, 2, Style::Colour).concat();
        assert!(colour.contains("38;2;255;255;255m") && colour.ends_with("\x1b[0m"), "{colour:?}");
    }

    #[test]
    fn an_enlarged_picture_has_the_size_asked_for() {
        let lines = draw(&[0.5; 64], 8, 12, Style::Plain);
        assert_eq!(lines.len(), 6);
        assert!(lines.iter().all(|l| l == &"▒".repeat(12)), "{lines:?}");
    }

    #[test]
    fn colour_is_for_terminals_that_want_it() {
        assert_eq!(Style::of_terminal(true, false, false), Style::Colour);
        for (terminal, no_color, dumb) in [(false, false, false), (true, true, false), (true, false, true)] {
            assert_eq!(Style::of_terminal(terminal, no_color, dumb), Style::Plain);
        }
    }
}
