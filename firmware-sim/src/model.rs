//! Sensor models: what a simulated device measures, and how it says it.
//!
//! In: a seed. Out: an endless series of [`Reading`]s, each with the last level of its topic, its kind and its content.
//! Values drift like those of real sensors, so that compression sees what it would see in the field.
//! Pure: the same seed gives the same series; time, sequence and QoS are the business of `device`.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::Serialize;

/// One reading in this many is an alarm.
const ALARM_ONE_IN: u32 = 500;
/// One reading in this many is a heartbeat.
const HEARTBEAT_ONE_IN: u32 = 20;
/// Samples in the binary frame of a vibration sensor.
const WAVE_SAMPLES: usize = 48;

/// What a reading is for; the device chooses its QoS by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular measurement.
    Telemetry,
    /// A rare event that somebody must see.
    Alarm,
    /// "I am here": worth little a second later.
    Heartbeat,
}

/// Body of a reading, without the stamp.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    /// Fields of a JSON object.
    Json(Fields),
    /// Raw bytes for a binary frame.
    Binary(Vec<u8>),
}

/// Fields of the JSON readings.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Fields {
    /// Temperature and humidity.
    Climate {
        /// Degrees Celsius.
        temperature_c: f64,
        /// Relative humidity.
        humidity_pct: f64,
        /// Charge of the battery.
        battery_pct: u8,
    },
    /// An energy meter.
    Energy {
        /// Counter that only rises.
        energy_wh: u64,
        /// Power now.
        power_w: f64,
        /// Voltage of the phase.
        voltage_v: f64,
    },
    /// A GPS tracker.
    Position {
        /// Degrees north.
        lat: f64,
        /// Degrees east.
        lon: f64,
        /// Ground speed.
        speed_kmh: f64,
        /// Direction of travel.
        heading_deg: u16,
    },
    /// Summary of a vibration window.
    Vibration {
        /// Effective velocity.
        rms_mm_s: f64,
        /// Largest acceleration.
        peak_g: f64,
        /// Strongest frequency.
        dominant_hz: f64,
    },
    /// An alarm of any sensor.
    Alarm {
        /// What was crossed.
        alarm: &'static str,
        /// The value that crossed it.
        value: f64,
    },
    /// A heartbeat of any sensor.
    Heartbeat {
        /// Readings since the device started.
        uptime_readings: u64,
    },
}

/// One thing to publish.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// Last level of the topic name.
    pub level: &'static str,
    /// What it is for.
    pub kind: Kind,
    /// What it says.
    pub content: Content,
}

/// State of the sensor.
#[derive(Debug)]
enum Sensor {
    Climate { temperature_c: f64, humidity_pct: f64 },
    Energy { energy_wh: u64, power_w: f64 },
    Tracker { lat: f64, lon: f64, heading_deg: f64 },
    Vibration { rms_mm_s: f64 },
}

/// A sensor with its own random source.
#[derive(Debug)]
pub struct Model {
    sensor: Sensor,
    random: StdRng,
    readings: u64,
}

impl Model {
    /// The model of the `index`-th device of a fleet: the four sensors in turn, each with its own drift.
    pub fn of_fleet(index: usize, seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed ^ (index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let sensor = match index % 4 {
            0 => Sensor::Climate {
                temperature_c: random.random_range(15.0..25.0),
                humidity_pct: 50.0,
            },
            1 => Sensor::Energy {
                energy_wh: random.random_range(0..5_000_000),
                power_w: 300.0,
            },
            2 => Sensor::Tracker {
                lat: random.random_range(47.0..55.0),
                lon: 8.0,
                heading_deg: 90.0,
            },
            _ => Sensor::Vibration {
                rms_mm_s: random.random_range(0.5..3.0),
            },
        };
        Self {
            sensor,
            random,
            readings: 0,
        }
    }

    /// The next reading.
    pub fn next_reading(&mut self) -> Reading {
        self.readings += 1;
        if self.random.random_ratio(1, ALARM_ONE_IN) {
            return self.alarm();
        }
        if self.random.random_ratio(1, HEARTBEAT_ONE_IN) {
            let fields = Fields::Heartbeat {
                uptime_readings: self.readings,
            };
            return Reading {
                level: "heartbeat",
                kind: Kind::Heartbeat,
                content: Content::Json(fields),
            };
        }
        self.measure()
    }

    fn measure(&mut self) -> Reading {
        let random = &mut self.random;
        let (level, content) = match &mut self.sensor {
            Sensor::Climate {
                temperature_c,
                humidity_pct,
            } => {
                *temperature_c = drift(*temperature_c, 0.1, random);
                *humidity_pct = drift(*humidity_pct, 0.3, random).clamp(5.0, 99.0);
                let (temperature_c, humidity_pct) = (rounded(*temperature_c), rounded(*humidity_pct));
                (
                    "climate",
                    Content::Json(Fields::Climate {
                        temperature_c,
                        humidity_pct,
                        battery_pct: 87,
                    }),
                )
            }
            Sensor::Energy { energy_wh, power_w } => {
                *power_w = drift(*power_w, 8.0, random).max(0.0);
                *energy_wh += random.random_range(0..3);
                let voltage_v = rounded(230.0 + random.random_range(-2.0..2.0));
                (
                    "energy",
                    Content::Json(Fields::Energy {
                        energy_wh: *energy_wh,
                        power_w: rounded(*power_w),
                        voltage_v,
                    }),
                )
            }
            Sensor::Tracker { lat, lon, heading_deg } => {
                *heading_deg = drift(*heading_deg, 5.0, random).rem_euclid(360.0);
                *lat += heading_deg.to_radians().cos() * 1e-4;
                *lon += heading_deg.to_radians().sin() * 1e-4;
                let (lat, lon) = (micro_degrees(*lat), micro_degrees(*lon));
                let speed_kmh = rounded(random.random_range(40.0..60.0));
                (
                    "position",
                    Content::Json(Fields::Position {
                        lat,
                        lon,
                        speed_kmh,
                        heading_deg: *heading_deg as u16,
                    }),
                )
            }
            Sensor::Vibration { rms_mm_s } => {
                *rms_mm_s = drift(*rms_mm_s, 0.05, random).max(0.05);
                vibration(*rms_mm_s, random)
            }
        };
        Reading {
            level,
            kind: Kind::Telemetry,
            content,
        }
    }

    fn alarm(&mut self) -> Reading {
        let (alarm, value) = match &self.sensor {
            Sensor::Climate { temperature_c, .. } => ("temperature high", *temperature_c + 40.0),
            Sensor::Energy { power_w, .. } => ("overload", *power_w * 10.0),
            Sensor::Tracker { .. } => ("left the area", 1.0),
            Sensor::Vibration { rms_mm_s } => ("bearing", *rms_mm_s * 4.0),
        };
        let fields = Fields::Alarm {
            alarm,
            value: rounded(value),
        };
        Reading {
            level: "alarm",
            kind: Kind::Alarm,
            content: Content::Json(fields),
        }
    }
}

/// A vibration sensor sends three summaries for each raw waveform.
fn vibration(rms_mm_s: f64, random: &mut StdRng) -> (&'static str, Content) {
    if random.random_ratio(1, 4) {
        let wave = (0..WAVE_SAMPLES).flat_map(|_| {
            let sample = (rms_mm_s * random.random_range(-1000.0..1000.0)) as i16;
            sample.to_be_bytes()
        });
        return ("waveform", Content::Binary(wave.collect()));
    }
    let (peak_g, dominant_hz) = (rounded(rms_mm_s / 3.0), rounded(random.random_range(49.0..51.0)));
    (
        "vibration",
        Content::Json(Fields::Vibration {
            rms_mm_s: rounded(rms_mm_s),
            peak_g,
            dominant_hz,
        }),
    )
}

fn drift(value: f64, step: f64, random: &mut StdRng) -> f64 {
    value + random.random_range(-step..step)
}

fn rounded(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

fn micro_degrees(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_series() {
        for index in 0..4 {
            let (mut one, mut other) = (Model::of_fleet(index, 7), Model::of_fleet(index, 7));
            for _ in 0..100 {
                assert_eq!(one.next_reading(), other.next_reading());
            }
        }
    }

    #[test]
    fn a_fleet_sends_json_and_binary_and_rare_alarms() {
        let mut readings = Vec::new();
        for index in 0..4 {
            let mut model = Model::of_fleet(index, 1);
            readings.extend((0..2_000).map(|_| model.next_reading()));
        }
        let alarms = readings.iter().filter(|reading| reading.kind == Kind::Alarm).count();
        assert!(
            (1..100).contains(&alarms),
            "{alarms} alarms in 8000 readings are not rare"
        );
        assert!(
            readings
                .iter()
                .any(|reading| matches!(reading.content, Content::Binary(_)))
        );
        assert!(readings.iter().any(|reading| reading.kind == Kind::Heartbeat));
    }
}
